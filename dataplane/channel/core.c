/* Slot release and the set of masked users. See core.h. */
#include "channel/core.h"

#include "channel/stream.h"

void bf_core_try_free(struct bf_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    const uint16_t busy = BF_CF_READY | BF_CF_URGENT | BF_CF_DIRTY | BF_CF_TIMED | BF_CF_RX_BLOCKED;
    if (hot->state == BF_CONN_CLOSED && hot->ops == 0 && (hot->flags & BF_CF_SOCKET_DONE) &&
        !(hot->flags & busy) && hot->queue_head == 0) {
        if (BF_UNLIKELY(hot->streams & BF_STREAMS_AS_EVENTS))
            bf_stream_drop(core, slot);
        bf_conn_put(&core->conns, slot);
    }
}

static bool is_empty(struct bf_user_key key)
{
    return key.hi == 0 && key.lo == 0;
}

/* Place of the user or of the empty entry that ends its probe; BF_MASKS_MAX when the set is full.
 */
static uint32_t mask_place(const struct bf_core *core, struct bf_user_key user)
{
    for (uint32_t i = 0; i < BF_MASKS_MAX; i++) {
        uint32_t at = ((uint32_t)user.lo + i) % BF_MASKS_MAX;
        if (is_empty(core->masks[at]) || bf_user_key_is_equal(core->masks[at], user))
            return at;
    }
    return BF_MASKS_MAX;
}

bool bf_masks_has(const struct bf_core *core, struct bf_user_key user)
{
    if (core->mask_count == 0)
        return false;
    uint32_t at = mask_place(core, user);
    return at < BF_MASKS_MAX && !is_empty(core->masks[at]);
}

static void mask_erase(struct bf_core *core, uint32_t hole)
{
    uint32_t at = hole;
    for (;;) {
        at = (at + 1) % BF_MASKS_MAX;
        struct bf_user_key key = core->masks[at];
        if (is_empty(key))
            break;
        uint32_t home = (uint32_t)key.lo % BF_MASKS_MAX;
        if ((at - home) % BF_MASKS_MAX >= (at - hole) % BF_MASKS_MAX) {
            core->masks[hole] = key;
            hole = at;
        }
    }
    core->masks[hole] = (struct bf_user_key){0};
    core->mask_count--;
}

void bf_masks_set(struct bf_core *core, struct bf_user_key user, bool on)
{
    uint32_t at = mask_place(core, user);
    if (at == BF_MASKS_MAX)
        return;
    bool present = !is_empty(core->masks[at]);
    /* one place stays empty, so that a probe ends */
    if (on && !present && core->mask_count < BF_MASKS_MAX - 1) {
        core->masks[at] = user;
        core->mask_count++;
    } else if (!on && present) {
        mask_erase(core, at);
    }
}
