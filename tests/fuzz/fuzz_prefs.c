/*
 * Preferences of any bytes. What compiles must decide alike after its stored form is compiled
 * again, and an opt-out must stop everything.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "prefs/prefs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"", "t", "like", "promo", "noise"};
#define NAMES (sizeof(names) / sizeof(names[0]))

static struct bf_bytes name(unsigned i)
{
    return (struct bf_bytes){names[i % NAMES], strlen(names[i % NAMES])};
}

static void compare(const struct bf_prefs *a, const struct bf_prefs *b)
{
    for (unsigned i = 0; i < NAMES * NAMES * NAMES; i++) {
        struct bf_bytes type = name(i), category = name(i / NAMES), topic = name(i / NAMES / NAMES);
        for (unsigned channel = 0; channel < BF_CHANNEL_COUNT; channel++) {
            enum bf_channel c = (enum bf_channel)channel;
            enum bf_reason said = bf_prefs_decide(a, type, category, topic, c);
            if (said != bf_prefs_decide(b, type, category, topic, c) ||
                (bf_prefs_is_opted_out(a) && said != BF_REASON_OPT_OUT))
                abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bf_prefs *prefs = NULL;
    struct bf_prefs *again = NULL;
    char *stored = NULL;
    struct bf_problem problem;
    if (bf_prefs_compile((struct bf_bytes){(const char *)data, size}, &prefs, &stored, &problem) !=
        0)
        return 0;
    if (bf_prefs_compile((struct bf_bytes){stored, strlen(stored)}, &again, NULL, &problem) != 0)
        abort();
    compare(prefs, again);
    free(stored);
    bf_prefs_free(prefs);
    bf_prefs_free(again);
    return 0;
}
