/* The names of channels, lanes, statuses and reasons, as status, metrics and logs show them. */
#include "belfry/base/bug.h"
#include "terms/channel.h"
#include "terms/lane.h"
#include "terms/reason.h"
#include "terms/status.h"

const char *bf_channel_name(enum bf_channel channel)
{
    static const char *const names[BF_CHANNEL_COUNT] = {"inapp", "push", "email", "sms", "webhook"};
    BF_BUG_ON((unsigned)channel >= BF_CHANNEL_COUNT);
    return names[channel];
}

const char *bf_lane_name(enum bf_lane lane)
{
    static const char *const names[BF_LANE_COUNT] = {"critical", "normal", "bulk"};
    BF_BUG_ON((unsigned)lane >= BF_LANE_COUNT);
    return names[lane];
}

const char *bf_status_name(enum bf_status status)
{
    static const char *const names[BF_STATUS_COUNT] = {
        [BF_STATUS_QUEUED] = "queued",       [BF_STATUS_SENT] = "sent",
        [BF_STATUS_DELIVERED] = "delivered", [BF_STATUS_SEEN] = "seen",
        [BF_STATUS_OPENED] = "opened",       [BF_STATUS_SUPPRESSED] = "suppressed",
        [BF_STATUS_FAILED] = "failed",       [BF_STATUS_EXPIRED] = "expired",
    };
    return (unsigned)status < BF_STATUS_COUNT ? names[status] : "unknown";
}

static const struct {
    const char *word;
    bool is_counted;
} reasons[BF_REASON_COUNT] = {
    [BF_REASON_NONE] = {"pass", false},
#define X(name, word_, is_counted_, help) [BF_REASON_##name] = {word_, is_counted_},
#include "terms/reasons.def"
#undef X
};

const char *bf_reason_name(enum bf_reason reason)
{
    BF_BUG_ON((unsigned)reason >= BF_REASON_COUNT);
    return reasons[reason].word;
}

bool bf_reason_is_counted(enum bf_reason reason)
{
    return (unsigned)reason < BF_REASON_COUNT && reasons[reason].is_counted;
}
