/*
 * Writes messages of librdkafka, and ours about it, to the log: each at most once a minute, and a
 * few lines in ten seconds altogether. Otherwise each of four clients would report an unreachable
 * broker several times a second. Called on any thread, librdkafka's own too.
 */
#include <pthread.h>
#include <string.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "log/kafka.h"

/* A line is said again after so long, with the number of those left out. */
#define REPEAT_MS 60000u
/* Different lines at once: four clients, a few brokers, a few reasons. Beyond it the oldest goes.
 */
#define KINDS 64u
/* All lines together: whatever is different in each (a number of requests) is bounded too. */
#define WINDOW_MS    10000u
#define WINDOW_LINES 12u

struct kind {
    uint64_t hash; /* 0: free */
    uint64_t said_ms;
    uint32_t left_out;
};

static struct {
    pthread_mutex_t lock;
    struct kind kinds[KINDS];
    uint64_t window_ms;
    uint32_t lines, left_out;
} said = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* After " (" come times and counts: "(after 3ms in state CONNECT, 30 identical ...)". */
static uint64_t hash_of(const char *who, const char *text)
{
    const char *end = strstr(text, " (");
    size_t len = end != NULL ? (size_t)(end - text) : strlen(text);
    return (XXH3_64bits(text, len) ^ XXH3_64bits(who, strlen(who))) | 1u;
}

static struct kind *find_kind(uint64_t hash)
{
    struct kind *oldest = &said.kinds[0];
    for (unsigned i = 0; i < KINDS; i++) {
        if (said.kinds[i].hash == hash)
            return &said.kinds[i];
        if (said.kinds[i].said_ms < oldest->said_ms)
            oldest = &said.kinds[i];
    }
    *oldest = (struct kind){.hash = hash};
    return oldest;
}

/* Whether this line is said now; |*ret_left_out|: its repeats since it was said last. */
static bool may_say(uint64_t hash, uint64_t now, uint32_t *ret_left_out)
{
    struct kind *kind = find_kind(hash);
    bool is_new = kind->said_ms == 0 || now - kind->said_ms >= REPEAT_MS;
    if (now - said.window_ms >= WINDOW_MS) {
        said.window_ms = now;
        said.lines = 0;
    }
    if (!is_new || said.lines >= WINDOW_LINES) {
        kind->left_out++;
        return false;
    }
    said.lines++;
    *ret_left_out = kind->left_out;
    kind->said_ms = now;
    kind->left_out = 0;
    return true;
}

void bf_kafka_say(const char *who, const char *text)
{
    uint32_t left_out = 0;
    pthread_mutex_lock(&said.lock);
    bool is_said = may_say(hash_of(who, text), bf_mono_ms() + 1, &left_out);
    pthread_mutex_unlock(&said.lock);
    if (!is_said)
        return;
    if (left_out > 0)
        BF_WARN("ctrlplane", "kafka: %s: %s; %u more like it were left out", who, text, left_out);
    else
        BF_WARN("ctrlplane", "kafka: %s: %s", who, text);
}

void bf_kafka_log_line(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk, (void)level;
    bf_kafka_say(facility, text);
}
