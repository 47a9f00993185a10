/* Sec-WebSocket-Extensions: each offer and the answer it gets (RFC 7692 7.1), the first that can be
 * met in a list or over several headers, and what breaks the grammar (RFC 6455 9.1). Each value is
 * taken from an exact-size buffer. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/http1/extensions.h"

#define TAKEOVER "server_no_context_takeover; client_no_context_takeover"

static int take(const char *value, struct bf_deflate_offer *offer)
{
    size_t len = strlen(value);
    char *copy = malloc(len ? len : 1);
    memcpy(copy, value, len);
    int rc = bf_extensions_take((struct bf_bytes){.at = copy, .len = len}, offer);
    free(copy);
    return rc;
}

Test(extensions, offers)
{
    static const struct {
        const char *offer, *more; /* |more|: of our answer, NULL: not agreed */
    } rows[] = {
        {"permessage-deflate", ""},
        {" permessage-deflate ; client_max_window_bits ", ""},
        {"permessage-deflate; client_max_window_bits=15", ""},
        {"permessage-deflate; client_max_window_bits=8", "; client_max_window_bits=8"},
        {"permessage-deflate; server_max_window_bits=8", "; server_max_window_bits=8"},
        {"permessage-deflate; server_max_window_bits=15", "; server_max_window_bits=15"},
        {"permessage-deflate;server_max_window_bits=\"12\"", "; server_max_window_bits=12"},
        {"x; a=\"b\"; c, permessage-deflate", ""},
        {"permessage-deflate; nonsense, permessage-deflate; server_max_window_bits=9",
         "; server_max_window_bits=9"},
        {"permessage-deflate; server_max_window_bits=9, permessage-deflate",
         "; server_max_window_bits=9"},
        {",,permessage-deflate,,", ""},
        {"permessage-deflate; server_max_window_bits=7", NULL},
        {"permessage-deflate; server_max_window_bits=16", NULL},
        {"permessage-deflate; server_max_window_bits=20", NULL},
        {"permessage-deflate; server_max_window_bits=09", NULL},
        {"permessage-deflate; server_max_window_bits", NULL},
        {"permessage-deflate; client_max_window_bits=7", NULL},
        {"permessage-deflate; client_max_window_bits; client_max_window_bits", NULL},
        {"permessage-deflate; client_no_context_takeover=true", NULL},
        {"PERMESSAGE-DEFLATE", NULL},
        {"x-other", NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bf_deflate_offer offer = {0};
        char out[BF_EXTENSIONS_BYTES_MAX];
        char want[BF_EXTENSIONS_BYTES_MAX];
        cr_assert_eq(take(rows[i].offer, &offer), 0, "%s", rows[i].offer);
        cr_assert_eq(offer.is_offered, rows[i].more != NULL, "%s", rows[i].offer);
        if (!rows[i].more)
            continue;
        snprintf(want, sizeof(want),
                 "Sec-WebSocket-Extensions: permessage-deflate; " TAKEOVER "%s\r\n", rows[i].more);
        size_t n = bf_extensions_write(&offer, out);
        cr_assert(n == strlen(want) && memcmp(out, want, n) == 0, "%s: %.*s", rows[i].offer, (int)n,
                  out);
    }
}

Test(extensions, the_longest_answer_fits)
{
    struct bf_deflate_offer offer = {0};
    char out[BF_EXTENSIONS_BYTES_MAX];
    cr_assert_eq(
        take("permessage-deflate; server_max_window_bits=14; client_max_window_bits=14; " TAKEOVER,
             &offer),
        0);
    cr_assert_gt(bf_extensions_write(&offer, out), 0);
}

Test(extensions, the_first_header_counts)
{
    struct bf_deflate_offer offer = {0};
    cr_assert_eq(take("x-other", &offer), 0);
    cr_assert_eq(take("permessage-deflate; server_max_window_bits=10", &offer), 0);
    cr_assert_eq(take("permessage-deflate", &offer), 0);
    cr_assert(offer.is_offered && offer.server_bits == 10);
}

Test(extensions, malformed)
{
    static const char *const rows[] = {"",
                                       " ",
                                       ",",
                                       ";",
                                       "permessage-deflate;",
                                       "a;;b",
                                       "a b",
                                       "a; b=",
                                       "a; =b",
                                       "a; b=\"",
                                       "a; b=\"c",
                                       "a; b=\"\"",
                                       "a; b=\"c d\"",
                                       "a; b=\"c\"d",
                                       "\"a\"",
                                       "a=b",
                                       "(a)",
                                       "a, @"};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bf_deflate_offer offer = {0};
        cr_assert_eq(take(rows[i], &offer), -400, "'%s'", rows[i]);
    }
}
