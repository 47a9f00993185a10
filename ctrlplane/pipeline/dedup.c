/* See dedup.h. */
#include "pipeline/dedup.h"

#include <string.h>

#include "admin/metrics.h"
#include "belfry/base/time.h"
#include "store/store.h"

/* Mark, tenant, dedup_key and recipient, each with its length. */
#define KEY_BYTES_MAX 512u

static int take_first_id(void *arg, const struct bf_idem_row *row)
{
    memcpy(arg, row->body_hash, sizeof(struct bf_id));
    return 0;
}

/* Whether |recipient| has had another event of this key; notes this one if it is the first. */
static bool is_raised_before(struct bf_core *core, struct bf_batch *batch,
                             const struct bf_event *event, struct bf_bytes recipient)
{
    uint8_t buf[KEY_BYTES_MAX];
    struct bf_writer w = {.buf = buf, .cap = sizeof(buf)};
    struct bf_id first;
    uint64_t now = bf_wall_ms();
    bf_put_str16(&w, BF_BYTES("dedup"));
    bf_put_str16(&w, (struct bf_bytes){event->meta.tenant, strlen(event->meta.tenant)});
    bf_put_str16(&w, event->dedup_key);
    bf_put_str16(&w, recipient);
    BF_BUG_ON(w.failed); /* each is bounded by its field */
    struct bf_bytes key = {.at = (char *)buf, .len = w.len};
    if (bf_store_get_idem(core->store, key, now, take_first_id, &first) == 0)
        return !bf_id_is_equal(&first, &event->id);
    struct bf_idem_row row = {
        .key = key, .expires_ms = now + (uint64_t)bf_core_conf(core)->dedup_window_s * 1000};
    memcpy(row.body_hash, event->id.bytes, sizeof(row.body_hash));
    bf_batch_put_idem(batch, &row);
    return false;
}

static void count_duplicate(void)
{
    /* relaxed: a number for people */
    atomic_fetch_add_explicit(&bf_ctrl_stats.suppressed[BF_REASON_DUPLICATE], 1,
                              memory_order_relaxed);
}

/* The status of the later event says why this recipient did not get it. */
static void suppress(struct bf_core *core, struct bf_batch *batch, const struct bf_event *event,
                     struct bf_bytes user)
{
    uint64_t now = bf_wall_ms();
    const struct bf_outcome outcome = {
        .event_id = event->id,
        .uid = {.tenant = {event->meta.tenant, strlen(event->meta.tenant)}, .user = user},
        .channel = BF_CHANNEL_INAPP,
        .status = BF_STATUS_SUPPRESSED,
        .at_ms = now,
        .expires_ms = now + (uint64_t)bf_core_conf(core)->status_ttl_s * 1000,
        .reason = BF_BYTES("duplicate"),
    };
    bf_batch_put_outcome(batch, &outcome);
    count_duplicate();
}

uint32_t bf_dedup_take(struct bf_core *core, struct bf_batch *batch, struct bf_event *event,
                       bool *ret_none)
{
    uint32_t left = 0, all = event->recipient_count;
    *ret_none = false;
    if (event->dedup_key.len == 0)
        return 0;
    if (event->target != BF_TARGET_USERS) {
        /* no user id is empty or holds a zero */
        char name[BF_TOPIC_BYTES_MAX + 1] = "";
        size_t len = event->target == BF_TARGET_TOPIC ? event->topic.len : 0;
        memcpy(name + 1, event->topic.at ? event->topic.at : "", len);
        *ret_none = is_raised_before(core, batch, event, (struct bf_bytes){name, len + 1});
        if (*ret_none)
            count_duplicate();
        return 0;
    }
    for (uint32_t i = 0; i < all; i++) {
        struct bf_bytes user = event->recipients[i];
        if (is_raised_before(core, batch, event, user)) {
            suppress(core, batch, event, user);
            continue;
        }
        event->recipients[i] = event->recipients[left];
        event->recipients[left++] = user;
    }
    event->recipient_count = left;
    *ret_none = left == 0;
    return all - left;
}
