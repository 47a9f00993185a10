/* Why a channel of an event did not reach a person, by name and by word: terms/reasons.def. */
#pragma once

enum bf_reason {
    BF_REASON_NONE = 0,
#define X(name, word) BF_REASON_##name,
#include "terms/reasons.def"
#undef X
    BF_REASON_COUNT
};

/* "opt_out", ...; of BF_REASON_NONE "pass". */
const char *bf_reason_name(enum bf_reason reason);
