/* What providers have, by the id of the attempt. See impl.h. */
#include "outbound/impl.h"

#include <stdlib.h>
#include <string.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "belfry/base/err.h"

/* A removed attempt's slot: probing goes on, adding may reuse it. Never dereferenced. */
static struct bf_outstanding tombstone;
#define TOMBSTONE (&tombstone)

_Static_assert(BF_ATTEMPT_SLOTS >= 2 * BF_ATTEMPTS_OUT_MAX &&
                   (BF_ATTEMPT_SLOTS & (BF_ATTEMPT_SLOTS - 1)) == 0,
               "attempts are found by probing");

int bf_outbound_init(struct bf_outbound *o, const struct bf_outbound_node *node, uint32_t index,
                     struct bf_turn *turn)
{
    *o = (struct bf_outbound){.turn = turn, .node = *node, .index = index};
    o->slots = calloc(BF_ATTEMPT_SLOTS, sizeof(struct bf_outstanding *));
    o->pools = calloc(BF_POOLS_MAX, sizeof(*o->pools));
    o->slow = calloc(BF_SLOW_ENDPOINTS, sizeof(*o->slow));
    return o->slots && o->pools && o->slow ? 0 : BF_ERR_NO_MEMORY;
}

void bf_outbound_fini(struct bf_outbound *o)
{
    for (struct bf_outstanding *out = o->oldest; out;) {
        struct bf_outstanding *next = out->next;
        free(out);
        out = next;
    }
    free(o->slots);
    free(o->pools);
    free(o->slow);
    *o = (struct bf_outbound){0};
}

struct bf_channel_state *bf_outbound_channel(const struct bf_outbound *o, uint8_t channel)
{
    return o->channels && channel < BF_CHANNEL_COUNT ? o->channels->at[channel] : NULL;
}

/* ---- by id ---- */

/* The same for every attempt of a message, whoever computes it, so the next process recognises
 * attempts that are under way (census) and those that were answered. The low byte is the partition,
 * by which the receipt finds its shard; an earlier version had another number there, so it is
 * ignored when ids are compared. */
uint64_t bf_attempt_id(const struct bf_leg_row *row)
{
    uint64_t hash =
        XXH3_64bits_withSeed(row->message_id.bytes, sizeof(row->message_id.bytes), row->attempts);
    return hash << 8 | row->partition;
}

static struct bf_outstanding **find_slot(const struct bf_outbound *o, uint64_t id)
{
    for (uint32_t i = (uint32_t)(id >> 8);; i++) {
        struct bf_outstanding **slot = &o->slots[i & (BF_ATTEMPT_SLOTS - 1)];
        if (!*slot || (*slot != TOMBSTONE && (*slot)->attempt.id >> 8 == id >> 8))
            return slot;
    }
}

struct bf_outstanding *bf_outstanding_find(const struct bf_outbound *o, uint64_t id)
{
    return *find_slot(o, id);
}

struct bf_outstanding *bf_outstanding_of(const struct bf_outbound *o, const struct bf_leg_row *row)
{
    struct bf_outstanding *found = bf_outstanding_find(o, bf_attempt_id(row));
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
    for (const struct bf_outstanding *out = o->oldest; out; out = out->next) {
        const struct bf_leg_row *row = &out->offer.row;
        if (bf_bytes_is_equal(row->uid.user, uid.user) &&
            bf_bytes_is_equal(row->uid.tenant, uid.tenant))
            lanes |= 1u << row->lane;
    }
    return lanes;
}

static void place(struct bf_outbound *o, struct bf_outstanding *out)
{
    uint32_t i = (uint32_t)(out->attempt.id >> 8) & (BF_ATTEMPT_SLOTS - 1);
    while (o->slots[i] && o->slots[i] != TOMBSTONE)
        i = (i + 1) & (BF_ATTEMPT_SLOTS - 1);
    o->slots_used += o->slots[i] == NULL;
    o->slots[i] = out;
}

/* Probing ends at a free slot: tombstones must not fill them. */
static void sweep_tombstones(struct bf_outbound *o)
{
    if (o->slots_used < BF_ATTEMPT_SLOTS / 4 * 3)
        return;
    memset(o->slots, 0, BF_ATTEMPT_SLOTS * sizeof(struct bf_outstanding *));
    o->slots_used = 0;
    for (struct bf_outstanding *out = o->oldest; out; out = out->next)
        place(o, out);
}

struct bf_outstanding *bf_outstanding_add(struct bf_outbound *o, const struct bf_offer *offer,
                                          const struct bf_endpoint *endpoint)
{
    struct bf_uid uid = offer->row.uid;
    if (o->attempt_count >= BF_ATTEMPTS_OUT_MAX || o->is_stopping)
        return NULL;
    struct bf_outstanding *out = calloc(1, sizeof(*out) + uid.tenant.len + uid.user.len);
    if (!out)
        return NULL;
    out->offer = *offer;
    out->attempt = (struct bf_attempt){.id = bf_attempt_id(&offer->row),
                                       .row = &out->offer.row,
                                       .kind = endpoint->kind,
                                       .registered_ms = endpoint->registered_ms};
    memcpy(out->attempt.hash, endpoint->hash, sizeof(out->attempt.hash));
    out->sent_ms = o->turn->mono_ms;
    if (uid.tenant.len > 0)
        memcpy(out->uid, uid.tenant.at, uid.tenant.len);
    memcpy(out->uid + uid.tenant.len, uid.user.at, uid.user.len);
    struct bf_leg_row *row = &out->offer.row;
    row->uid.tenant.at = out->uid;
    row->uid.user.at = out->uid + uid.tenant.len;
    row->type = row->category = row->topic = BF_BYTES("");
    row->meta = row->fragment = row->overrides = row->reason = BF_BYTES("");
    sweep_tombstones(o);
    place(o, out);
    out->prev = o->newest;
    *(o->newest ? &o->newest->next : &o->oldest) = out;
    o->newest = out;
    o->attempt_count++;
    return out;
}

void bf_outstanding_drop(struct bf_outbound *o, struct bf_outstanding *out)
{
    *find_slot(o, out->attempt.id) = TOMBSTONE;
    *(out->prev ? &out->prev->next : &o->oldest) = out->next;
    *(out->next ? &out->next->prev : &o->newest) = out->prev;
    if (out->pool)
        out->pool->attempts_out--;
    o->attempt_count--;
    o->renamed_count -= out->is_renamed;
    free(out);
}
