/* Why a leg was not delivered: one word from reasons.def. Types and names only. */
#pragma once

#include <stdbool.h>

enum bf_reason {
    BF_REASON_NONE = 0, /* nothing speaks against it */
#define X(name, word, is_counted, help) BF_REASON_##name,
#include "terms/reasons.def"
#undef X
    BF_REASON_COUNT
};

/* "opt_out", ...; "pass" for BF_REASON_NONE. Static text; any thread. */
const char *bf_reason_name(enum bf_reason reason);
/* Whether belfry_suppressed_total has a series of it. */
bool bf_reason_is_counted(enum bf_reason reason);
