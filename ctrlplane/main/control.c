/* See control.h. */
#include "main/control.h"

#include <string.h>

#include "belfry/base/time.h"
#include "publish/frames.h"
#include "stats/metrics.h"

/* Broadcasts of one turn: main looks at other things between turns. */
#define BROADCASTS_PER_TURN 256u

void bf_control_attach(struct bf_control *c, struct bf_core *core, struct bf_region *region,
                       uint32_t generation)
{
    c->core = core;
    bf_publisher_attach(&c->pub, region, region->geometry.producers - 1, generation);
}

static void send_to_all(struct bf_control *c, enum bf_cmd_kind kind, const void *payload)
{
    for (uint32_t w = 0; w < c->pub.workers; w++)
        (void)bf_publisher_send(&c->pub, w, BF_LANE_CRITICAL, kind, payload,
                                (struct bf_block_ref){0});
    bf_publisher_flush(&c->pub);
}

uint64_t bf_control_census(struct bf_control *c)
{
    c->census_ticket = bf_mono_ns() | 1; /* never 0, never an earlier one of this region */
    struct bf_cmd_census cmd = {.ticket = c->census_ticket};
    send_to_all(c, BF_CMD_CENSUS, &cmd);
    return c->census_ticket;
}

int bf_control_ready(struct bf_control *c, uint64_t from)
{
    uint64_t head = bf_blog_head(c->core->blog);
    int64_t held = bf_publisher_adopt_blocks(&c->pub);
    c->published = from < head ? from : head;
    /* connections that lack more than this list their inbox instead; a restart must not walk the
     * whole log */
    if (head - c->published > BF_REPLAY_MESSAGES_MAX)
        c->published = head - BF_REPLAY_MESSAGES_MAX;
    return held < 0 ? (int)held : 0;
}

struct broadcast_turn {
    struct bf_control *c;
    uint32_t count;
    bool full;
};

static bool has_room(struct bf_control *c)
{
    for (uint32_t w = 0; w < c->pub.workers; w++)
        if (!bf_publisher_has_room(&c->pub, w, BF_LANE_NORMAL, 1))
            return false;
    return true;
}

/* One shared block for every worker and connection (DESIGN 2). */
static int publish_row(void *arg, const struct bf_bcast_row *row)
{
    struct broadcast_turn *turn = arg;
    struct bf_control *c = turn->c;
    struct bf_block_ref ref;
    uint32_t bytes = (uint32_t)bf_frame_n_max(row->fragment.len);
    if (row->expires_ms && row->expires_ms <= bf_wall_ms())
        return 0; /* its bseq is a gap */
    uint8_t *data = has_room(c) ? bf_publisher_alloc(&c->pub, bytes, &ref) : NULL;
    if (!data || turn->count++ >= BROADCASTS_PER_TURN) {
        if (data)
            bf_publisher_drop(&c->pub, ref);
        turn->full = true;
        return 1;
    }
    size_t len = bf_frame_b(data, bytes, row->bseq, &row->event_id, row->fragment);
    bf_publisher_set_len(&c->pub, ref, (uint32_t)len);
    const uint8_t *secret = c->pub.region->user_secret;
    struct bf_cmd_broadcast cmd = {
        .block = ref,
        .prev = c->published,
        .bseq = row->bseq,
        .tenant = bf_tenant_hash(secret, row->tenant.at, row->tenant.len),
    };
    if (row->topic.len > 0)
        cmd.topic = bf_topic_hash(secret, cmd.tenant, row->topic.at, row->topic.len);
    for (uint32_t w = 0; w < c->pub.workers; w++)
        (void)bf_publisher_send(&c->pub, w, BF_LANE_NORMAL, BF_CMD_BROADCAST, &cmd, ref);
    c->published = row->bseq;
    return 0;
}

bool bf_control_broadcast(struct bf_control *c)
{
    uint64_t head = bf_blog_head(c->core->blog);
    struct broadcast_turn turn = {.c = c};
    bf_publisher_reclaim(&c->pub);
    if (c->published < head) {
        bf_store_walk_bcast(c->core->store, c->published, head, publish_row, &turn);
        bf_publisher_flush(&c->pub);
    }
    return !turn.full;
}

void bf_control_drain(struct bf_control *c, uint32_t rate, uint32_t reconnect_after_ms)
{
    struct bf_cmd_drain cmd = {.rate = rate, .reconnect_after_ms = reconnect_after_ms};
    send_to_all(c, BF_CMD_DRAIN, &cmd);
}
