/* See reason.h. */
#include "terms/reason.h"

#include "belfry/base/bug.h"

static const char *const words[BF_REASON_COUNT] = {
    [BF_REASON_NONE] = "pass",
#define X(name, word) [BF_REASON_##name] = word,
#include "terms/reasons.def"
#undef X
};

const char *bf_reason_name(enum bf_reason reason)
{
    BF_BUG_ON((unsigned)reason >= BF_REASON_COUNT);
    return words[reason];
}
