/* What providers have, by the id of the attempt. See impl.h. */
#include "outbound/impl.h"

#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"

/* A removed attempt's slot: probing goes on, adding may reuse it. Never dereferenced. */
static struct bf_attempt tombstone;
#define TOMBSTONE (&tombstone)

_Static_assert(BF_ATTEMPT_SLOTS >= 2 * BF_ATTEMPTS_OUT_MAX &&
                   (BF_ATTEMPT_SLOTS & (BF_ATTEMPT_SLOTS - 1)) == 0,
               "attempts are found by probing");

int bf_outbound_init(struct bf_outbound *o, const struct bf_outbound_node *node, uint32_t index,
                     struct bf_turn *turn)
{
    *o = (struct bf_outbound){.turn = turn,
                              .census = node->census,
                              .index = index,
                              .shards = node->shards,
                              .partitions = node->partitions};
    o->slots = calloc(BF_ATTEMPT_SLOTS, sizeof(struct bf_attempt *));
    o->pools = calloc(BF_PUSH_POOLS_MAX, sizeof(*o->pools));
    o->slow = calloc(BF_SLOW_ENDPOINTS, sizeof(*o->slow));
    return o->slots && o->pools && o->slow ? 0 : BF_ERR_NO_MEMORY;
}

void bf_outbound_fini(struct bf_outbound *o)
{
    for (struct bf_attempt *attempt = o->oldest; attempt;) {
        struct bf_attempt *next = attempt->next;
        free(attempt);
        attempt = next;
    }
    free(o->slots);
    free(o->pools);
    free(o->slow);
    *o = (struct bf_outbound){0};
}

/* ---- by id ------------------------------------------------------------------------------------
 */

/* The same for a message's attempt whoever asks, so a successor knows what flies (census) and what
 * has been answered. The low byte, the partition, routes the receipt; a former version put another
 * number there, so it tells no attempt from another. */
uint64_t bf_attempt_id(const struct bf_leg_row *row)
{
    uint64_t hash =
        XXH3_64bits_withSeed(row->message_id.bytes, sizeof(row->message_id.bytes), row->attempts);
    return hash << 8 | row->partition;
}

static struct bf_attempt **find_slot(const struct bf_outbound *o, uint64_t id)
{
    for (uint32_t i = (uint32_t)(id >> 8);; i++) {
        struct bf_attempt **slot = &o->slots[i & (BF_ATTEMPT_SLOTS - 1)];
        if (!*slot || (*slot != TOMBSTONE && (*slot)->id >> 8 == id >> 8))
            return slot;
    }
}

struct bf_attempt *bf_attempt_find(const struct bf_outbound *o, uint64_t id)
{
    return *find_slot(o, id);
}

struct bf_attempt *bf_attempt_of(const struct bf_outbound *o, const struct bf_leg_row *row)
{
    struct bf_attempt *found = bf_attempt_find(o, bf_attempt_id(row));
    if (found || o->renamed_count == 0)
        return found;
    for (found = o->oldest; found; found = found->next)
        if (found->is_renamed && bf_id_is_equal(&found->offer.row.message_id, &row->message_id))
            return found;
    return NULL;
}

uint32_t bf_outbound_lanes_of(const struct bf_outbound *o, struct bf_uid uid)
{
    uint32_t lanes = 0;
    for (const struct bf_attempt *attempt = o->oldest; attempt; attempt = attempt->next) {
        const struct bf_leg_row *row = &attempt->offer.row;
        if (bf_bytes_is_equal(row->uid.user, uid.user) &&
            bf_bytes_is_equal(row->uid.tenant, uid.tenant))
            lanes |= 1u << row->lane;
    }
    return lanes;
}

static void place(struct bf_outbound *o, struct bf_attempt *attempt)
{
    uint32_t i = (uint32_t)(attempt->id >> 8) & (BF_ATTEMPT_SLOTS - 1);
    while (o->slots[i] && o->slots[i] != TOMBSTONE)
        i = (i + 1) & (BF_ATTEMPT_SLOTS - 1);
    o->slots_used += o->slots[i] == NULL;
    o->slots[i] = attempt;
}

/* Probing ends at a free slot: tombstones must not fill them. */
static void sweep_tombstones(struct bf_outbound *o)
{
    if (o->slots_used < BF_ATTEMPT_SLOTS / 4 * 3)
        return;
    memset(o->slots, 0, BF_ATTEMPT_SLOTS * sizeof(struct bf_attempt *));
    o->slots_used = 0;
    for (struct bf_attempt *attempt = o->oldest; attempt; attempt = attempt->next)
        place(o, attempt);
}

struct bf_attempt *bf_attempt_add(struct bf_outbound *o, const struct bf_offer *offer)
{
    struct bf_uid uid = offer->row.uid;
    if (o->attempt_count >= BF_ATTEMPTS_OUT_MAX || o->is_landing)
        return NULL;
    struct bf_attempt *attempt = calloc(1, sizeof(*attempt) + uid.tenant.len + uid.user.len);
    if (!attempt)
        return NULL;
    attempt->offer = *offer;
    attempt->id = bf_attempt_id(&offer->row);
    attempt->sent_ms = o->turn->mono_ms;
    if (uid.tenant.len > 0)
        memcpy(attempt->uid, uid.tenant.at, uid.tenant.len);
    memcpy(attempt->uid + uid.tenant.len, uid.user.at, uid.user.len);
    struct bf_leg_row *row = &attempt->offer.row;
    row->uid.tenant.at = attempt->uid;
    row->uid.user.at = attempt->uid + uid.tenant.len;
    row->type = row->category = row->topic = BF_BYTES("");
    row->meta = row->fragment = row->overrides = row->reason = BF_BYTES("");
    sweep_tombstones(o);
    place(o, attempt);
    attempt->prev = o->newest;
    *(o->newest ? &o->newest->next : &o->oldest) = attempt;
    o->newest = attempt;
    o->attempt_count++;
    return attempt;
}

void bf_attempt_drop(struct bf_outbound *o, struct bf_attempt *attempt)
{
    *find_slot(o, attempt->id) = TOMBSTONE;
    *(attempt->prev ? &attempt->prev->next : &o->oldest) = attempt->next;
    *(attempt->next ? &attempt->next->prev : &o->newest) = attempt->prev;
    if (attempt->pool)
        attempt->pool->attempts_out--;
    o->attempt_count--;
    o->renamed_count -= attempt->is_renamed;
    free(attempt);
}
