/*
 * Replays from the inbox and the broadcast log to one connection (DESIGN 4.6), packed: many frames
 * a block. A replay goes as far as its window; the last command says whether the head was reached,
 * and if not, the worker's next "behind" receipt asks for more. And deadlines: what no device has
 * acknowledged is sent once more (DESIGN 4.7).
 */
#include "fanout/shard.h"

#include <stdlib.h>
#include <string.h>

#include "stats/metrics.h"
#include "fanout/core_state.h"
#include "publish/frames.h"

/* Bytes of one replay command: the 16 KiB class, so that many small frames travel as one send. */
#define PACK_BYTES 16384u
/* Commands of one turn for one connection and stream; then it waits until they have drained. */
#define REPLAY_WINDOW 8u
/* Connections served a turn of the shard's loop, so that live events are not held up by a storm. */
#define REPLAY_CONNS_PER_TURN 64u
/* Messages sent again at one deadline. */
#define RESEND_MAX 64u

bool bf_shard_send_conn(struct bf_shard *shard, uint32_t worker, enum bf_lane lane,
                        enum bf_cmd_kind kind, struct bf_cmd_conn_frame cmd, const uint8_t *frame,
                        uint32_t len)
{
    struct bf_block_ref ref = {0};
    if (!bf_publisher_has_room(&shard->pub, worker, lane, 1))
        return false;
    if (len) {
        uint8_t *data = bf_publisher_alloc(&shard->pub, len, &ref);
        if (!data)
            return false;
        memcpy(data, frame, len);
        cmd.block = ref;
    }
    return bf_publisher_send(&shard->pub, worker, lane, kind, &cmd, ref);
}

bool bf_shard_send_state(struct bf_shard *shard, struct bf_user *user, const struct bf_id *id,
                         const char *member, bool value, uint32_t worker, bf_conn_id except)
{
    uint8_t frame[256];
    size_t len = bf_frame_state(frame, sizeof(frame), id, member, value, user->state.unread);
    uint64_t done = 0;
    bool is_told = true;
    for (const struct bf_conn *conn = user->conns; conn; conn = conn->next) {
        if (done >> conn->worker & 1u)
            continue;
        done |= UINT64_C(1) << conn->worker;
        struct bf_block_ref ref;
        uint8_t *data = bf_publisher_alloc(&shard->pub, (uint32_t)len, &ref);
        if (!data)
            return false;
        memcpy(data, frame, len);
        struct bf_cmd_frame cmd = {
            .user = user->key, .block = ref, .seq = conn->worker == worker ? except : 0};
        if (!bf_publisher_send(&shard->pub, conn->worker, BF_LANE_NORMAL, BF_CMD_STATE, &cmd,
                               ref)) {
            bf_publisher_drop(&shard->pub, ref);
            is_told = false;
        }
    }
    return is_told;
}

void bf_shard_want_replay(struct bf_shard *shard, struct bf_conn *conn, uint32_t stream)
{
    conn->replay_streams |= (uint8_t)(1u << stream);
    if (conn->on_replay_list)
        return;
    conn->on_replay_list = true;
    conn->replay_next = shard->replays;
    shard->replays = conn;
}

/* A replay under way: frames collected for the next command. */
struct pack {
    struct bf_shard *shard;
    struct bf_conn *conn;
    uint32_t stream;
    uint64_t prev, last; /* the command covers (prev, last] */
    uint32_t len;
    uint32_t messages;
    uint32_t commands;
    bool stopped; /* no room, or the window is used up */
};

static bool flush_pack(struct pack *p, enum bf_replay_end end)
{
    struct bf_cmd_conn_frame cmd = {
        .conn = p->conn->id, .prev = p->prev, .seq = p->last, .last = (uint32_t)end};
    bool is_b = p->stream == BF_STREAM_BROADCAST;
    enum bf_lane lane = is_b ? BF_LANE_NORMAL : (enum bf_lane)p->stream;
    if (!bf_shard_send_conn(p->shard, p->conn->worker, lane, is_b ? BF_CMD_REPLAY_B : BF_CMD_REPLAY,
                            cmd, p->shard->scratch, p->len))
        return false;
    p->conn->sent[p->stream] = p->last;
    p->prev = p->last;
    p->len = 0;
    p->commands++;
    return true;
}

/* Appends one encoded frame; sends the pack first if it does not fit. Non-zero stops the walk. */
static int append_frame(struct pack *p, size_t need, size_t room_max)
{
    if (p->len > 0 && p->len + need > PACK_BYTES) {
        bool last = p->commands + 1 >= REPLAY_WINDOW;
        if (!flush_pack(p, last ? BF_REPLAY_WINDOW_END : BF_REPLAY_MORE) || last) {
            p->stopped = true;
            return 1;
        }
    }
    return p->len + need > room_max;
}

static int pack_item(void *arg, const struct bf_item *item)
{
    struct pack *p = arg;
    size_t need = bf_frame_n_max(item->fragment.len);
    size_t cap = bf_block_class_bytes[BF_BLOCK_80K];
    if (append_frame(p, need, cap))
        return 1;
    p->len += (uint32_t)bf_frame_n(p->shard->scratch + p->len, cap - p->len, item->lane, item->seq,
                                   &item->id, item->fragment);
    p->last = item->seq;
    p->messages++;
    return 0;
}

static int pack_broadcast(void *arg, const struct bf_bcast_row *row)
{
    struct pack *p = arg;
    size_t need = bf_frame_n_max(row->fragment.len);
    size_t cap = bf_block_class_bytes[BF_BLOCK_80K];
    if (row->topic.len > 0 || (row->expires_ms && row->expires_ms <= p->shard->turn.now_ms))
        return 0; /* a topic's are for sockets subscribed at the time; gaps are legal */
    if (!bf_bytes_is_equal(row->tenant, bf_user_uid(p->conn->user).tenant))
        return 0; /* another tenant's: a gap too */
    if (append_frame(p, need, cap))
        return 1;
    p->len += (uint32_t)bf_frame_b(p->shard->scratch + p->len, cap - p->len, row->bseq,
                                   &row->event_id, row->fragment);
    p->last = row->bseq;
    p->messages++;
    return 0;
}

/* Returns false when it could not finish for lack of room (try again next turn). */
static bool replay_stream(struct bf_shard *shard, struct bf_conn *conn, uint32_t stream)
{
    struct bf_user *user = conn->user;
    bool is_b = stream == BF_STREAM_BROADCAST;
    bf_shard_settle_heads(shard, conn->user);
    uint64_t head = is_b ? bf_blog_head(shard->core->blog) : user->state.head[stream];
    struct pack p = {.shard = shard,
                     .conn = conn,
                     .stream = stream,
                     .prev = conn->sent[stream],
                     .last = conn->sent[stream]};
    if (user->opted_out) /* broadcasts made meanwhile are skipped and never sent */
        p.last = head;
    else if (is_b)
        bf_store_walk_bcast(shard->core->store, p.prev, head, pack_broadcast, &p);
    else
        bf_store_walk_lane(shard->core->store, bf_user_uid(user), (enum bf_lane)stream, p.prev,
                           head, shard->turn.now_ms, pack_item, &p);
    bf_count(BF_CM_M_replays, 1);
    bf_count(BF_CM_M_replayed_messages, p.messages);
    if (!p.stopped)
        p.last = head > p.last ? head : p.last; /* what expired at the end is covered too */
    else if (p.commands >= REPLAY_WINDOW && p.len == 0)
        return true; /* the worker asks for more when it has drained */
    bool sent = flush_pack(&p, p.stopped ? BF_REPLAY_WINDOW_END : BF_REPLAY_HEAD);
    if (sent && !is_b)
        bf_shard_start_deadline(shard, conn, (enum bf_lane)stream, shard->turn.mono_ms);
    return sent && (!p.stopped || p.commands >= REPLAY_WINDOW);
}

static bool replay_conn(struct bf_shard *shard, struct bf_conn *conn)
{
    for (uint32_t s = 0; s < BF_STREAM_COUNT; s++) {
        if (!(conn->replay_streams & 1u << s))
            continue;
        if (!replay_stream(shard, conn, s))
            return false;
        conn->replay_streams &= (uint8_t) ~(1u << s);
    }
    return true;
}

void bf_shard_run_replays(struct bf_shard *shard)
{
    if (!shard->presence_known || !shard->replays)
        return;
    struct bf_conn **at = &shard->replays;
    for (uint32_t n = 0; *at && n < REPLAY_CONNS_PER_TURN; n++) {
        struct bf_conn *conn = *at;
        if (!conn->gone && !replay_conn(shard, conn)) {
            at = &conn->replay_next; /* no room now: stays, others get their turn */
            continue;
        }
        *at = conn->replay_next;
        conn->on_replay_list = false;
        if (conn->gone)
            free(conn);
    }
}

void bf_shard_start_deadline(struct bf_shard *shard, struct bf_conn *conn, enum bf_lane lane,
                             uint64_t now_ms)
{
    if (conn->unacked_since_ms[lane] || conn->sent[lane] <= conn->resent_to[lane])
        return;
    if (shard->deadline_count == shard->deadline_cap) {
        uint32_t cap = shard->deadline_cap ? shard->deadline_cap * 2 : 4096;
        struct bf_deadline *fresh = calloc(cap, sizeof(*fresh));
        if (!fresh)
            return; /* it stays stored and is replayed at the next resume */
        for (uint32_t i = 0; i < shard->deadline_count; i++)
            fresh[i] = shard->deadlines[(shard->deadline_head + i) % shard->deadline_cap];
        free(shard->deadlines);
        shard->deadlines = fresh;
        shard->deadline_head = 0;
        shard->deadline_cap = cap;
    }
    conn->unacked_since_ms[lane] = now_ms;
    uint32_t at = (shard->deadline_head + shard->deadline_count++) % shard->deadline_cap;
    shard->deadlines[at] = (struct bf_deadline){
        .due_ms = now_ms + bf_core_conf(shard->core)->ack_deadline_ms,
        .since_ms = now_ms,
        .conn = conn->id,
        .worker = conn->worker,
        .lane = lane,
    };
}

struct resend {
    struct bf_shard *shard;
    struct bf_conn *conn;
    uint32_t messages;
    uint64_t last;
};

/* Sent again outside the sequence rule, as a reply: the device has it or takes it now, by id. */
static int resend_item(void *arg, const struct bf_item *item)
{
    struct resend *r = arg;
    size_t cap = bf_block_class_bytes[BF_BLOCK_80K];
    size_t len =
        bf_frame_n(r->shard->scratch, cap, item->lane, item->seq, &item->id, item->fragment);
    struct bf_cmd_conn_frame cmd = {.conn = r->conn->id, .flags = BF_CONN_NOTICE};
    if (len > cap || !bf_shard_send_conn(r->shard, r->conn->worker, item->lane, BF_CMD_REPLY, cmd,
                                         r->shard->scratch, (uint32_t)len))
        return 1;
    r->last = item->seq;
    return ++r->messages >= RESEND_MAX;
}

static void resend_unacked(struct bf_shard *shard, struct bf_conn *conn, enum bf_lane lane)
{
    uint64_t from =
        conn->acked[lane] > conn->resent_to[lane] ? conn->acked[lane] : conn->resent_to[lane];
    struct resend r = {.shard = shard, .conn = conn, .last = from};
    conn->unacked_since_ms[lane] = 0;
    if (conn->user->opted_out)
        return;
    bf_store_walk_lane(shard->core->store, bf_user_uid(conn->user), lane, from, conn->sent[lane],
                       shard->turn.now_ms, resend_item, &r);
    bf_count(BF_CM_M_resends, r.messages);
    /* once each: afterwards it stays stored and is replayed at a resume */
    conn->resent_to[lane] = r.messages >= RESEND_MAX ? r.last : conn->sent[lane];
}

void bf_shard_run_deadlines(struct bf_shard *shard)
{
    uint64_t now = shard->turn.mono_ms;
    while (shard->deadline_count && shard->deadlines[shard->deadline_head].due_ms <= now) {
        struct bf_deadline due = shard->deadlines[shard->deadline_head];
        shard->deadline_head = (shard->deadline_head + 1) % shard->deadline_cap;
        shard->deadline_count--;
        struct bf_conn *conn = bf_conn_find(&shard->conns, due.worker, due.conn);
        if (conn && conn->unacked_since_ms[due.lane] == due.since_ms)
            resend_unacked(shard, conn, (enum bf_lane)due.lane);
    }
}
