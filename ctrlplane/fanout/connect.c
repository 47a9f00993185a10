/*
 * Receipts as a shard takes them: connect (answered in one step: heads, presence, welcome, markers,
 * replay; DESIGN 5), gone, acknowledgement, behind, client commands, census answers.
 */
#include "fanout/shard.h"

#include <stdlib.h>
#include <string.h>

#include "stats/metrics.h"
#include "belfry/base/time.h"
#include "fanout/core_state.h"
#include "publish/frames.h"

/* Slots that the answer to a connect takes at most in one lane: welcome, two markers, and slack. */
#define CONNECT_SLOTS 8u
/* user id escaped (6 bytes a control character) and the rest of a welcome. */
#define WELCOME_BYTES_MAX (BF_USER_ID_BYTES_MAX * 6u + 512u)

struct bf_user *bf_shard_user_of_token(struct bf_shard *shard, struct bf_uid uid)
{
    struct bf_user *user = bf_user_find(&shard->users, uid);
    if (user)
        return user;
    user = bf_user_add(&shard->users, uid); /* a valid token creates the user (ING-11) */
    if (user)
        bf_batch_put_user(shard->batch, uid, BF_BYTES("{}"));
    return user;
}

static struct bf_uid uid_of(const struct bf_rcpt_connect *c, const uint8_t *bytes)
{
    const char *text = (const char *)bytes + sizeof(*c);
    return (struct bf_uid){
        .tenant = {.at = text + c->user_len + c->device_len, .len = c->tenant_len},
        .user = {.at = text, .len = c->user_len},
    };
}

static bool is_sound(const struct bf_receipt_msg *msg, const struct bf_rcpt_connect *c)
{
    return msg->len >= sizeof(*c) && c->user_len > 0 && c->user_len <= BF_USER_ID_BYTES_MAX &&
           c->device_len <= BF_DEVICE_BYTES_MAX && c->tenant_len <= BF_TENANT_BYTES_MAX &&
           msg->len >= sizeof(*c) + c->user_len + c->device_len + c->tenant_len;
}

/* Counts what a resume would replay, up to the limits of DESIGN 5. */
struct resume_sum {
    uint32_t messages;
    size_t bytes;
};

static int add_to_sum(void *arg, const struct bf_item *item)
{
    struct resume_sum *sum = arg;
    sum->messages++;
    sum->bytes += item->fragment.len;
    return sum->messages > BF_REPLAY_MESSAGES_MAX || sum->bytes > BF_REPLAY_BYTES_MAX;
}

static uint64_t resume_start(const struct bf_user *user, const struct bf_rcpt_connect *c,
                             uint32_t lane)
{
    uint64_t seq = c->resume_seq[lane];
    if (seq != UINT64_MAX)
        return seq;
    /* a client that never named this lane gets what nobody has acknowledged */
    uint64_t acked = user->state.ack_to[lane];
    return acked < user->state.head[lane] ? acked : user->state.head[lane];
}

/* Whether the broadcasts that the client missed can be replayed: its position is one of this log,
 * and no further back than a resume reaches. Without a position there is nothing to replay. */
static bool can_resume_b(const struct bf_rcpt_connect *c, uint64_t head)
{
    return !(c->flags & BF_CONNECT_RESUME_B) ||
           (c->resume_b <= head && head - c->resume_b <= BF_REPLAY_MESSAGES_MAX);
}

/* Decides whether the connection resumes, and from where each lane and the broadcasts go on.
 * "Resumed" promises that nothing is missing, broadcasts included; if too much is missing in any of
 * them the client is told so. */
static bool plan_resume(struct bf_shard *shard, struct bf_user *user,
                        const struct bf_rcpt_connect *c, uint64_t start[BF_LANE_COUNT],
                        uint64_t *ret_b)
{
    struct bf_bytes epoch = shard->core->epoch;
    struct resume_sum sum = {0};
    uint64_t head_b = bf_blog_head(shard->core->blog);
    bool is_same = (c->flags & BF_CONNECT_RESUME) && !user->opted_out &&
                   c->resume_epoch_hash == bf_name_hash(shard->users.secret, epoch.at, epoch.len);
    bool has_b = is_same && can_resume_b(c, head_b);
    bool ok = has_b;
    *ret_b = has_b && (c->flags & BF_CONNECT_RESUME_B) ? c->resume_b : head_b;
    for (uint32_t lane = 0; lane < BF_LANE_COUNT && ok; lane++) {
        start[lane] = resume_start(user, c, lane);
        ok = start[lane] <= user->state.head[lane] &&
             bf_store_walk_lane(shard->core->store, bf_user_uid(user), (enum bf_lane)lane,
                                start[lane], user->state.head[lane], shard->turn.now_ms, add_to_sum,
                                &sum) == 0;
    }
    for (uint32_t lane = 0; lane < BF_LANE_COUNT && !ok; lane++)
        start[lane] = user->state.head[lane];
    return ok;
}

static bool send_welcome(struct bf_shard *shard, const struct bf_conn *conn,
                         const struct bf_rcpt_connect *c, bool resumed, uint64_t b)
{
    uint8_t frame[WELCOME_BYTES_MAX];
    const struct bf_user *user = conn->user;
    struct bf_welcome w = {.worker = conn->worker,
                           .conn = conn->id,
                           .user = bf_user_uid(user).user,
                           .epoch = shard->core->epoch,
                           .b = b,
                           .resumed = resumed,
                           .unread = user->state.unread,
                           .ping_ms = bf_core_conf(shard->core)->ping_interval_ms,
                           .expires_ms = c->token_expires_ms};
    memcpy(w.head, user->state.head, sizeof(w.head));
    size_t len = bf_frame_welcome(frame, sizeof(frame), &w);
    BF_BUG_ON(len > sizeof(frame));
    struct bf_cmd_conn_frame cmd = {.conn = conn->id,
                                    .flags = user->opted_out ? BF_CONN_MASKED : 0};
    return bf_shard_send_conn(shard, conn->worker, BF_LANE_CRITICAL, BF_CMD_WELCOME, cmd, frame,
                              (uint32_t)len);
}

/* Sends the markers of the streams in |mask|. Room for them was checked. */
static void open_streams(struct bf_shard *shard, struct bf_conn *conn, uint32_t mask,
                         const uint64_t start[BF_LANE_COUNT], uint64_t b)
{
    conn->unopened &= (uint8_t)~mask;
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++) {
        if (!(mask & 1u << lane))
            continue;
        struct bf_cmd_conn_frame cmd = {.conn = conn->id, .seq = start[lane]};
        bool sent =
            bf_shard_send_conn(shard, conn->worker, (enum bf_lane)lane, BF_CMD_OPEN, cmd, NULL, 0);
        BF_BUG_ON(!sent); /* room was checked before the welcome */
        conn->opened[lane] = start[lane];
        conn->sent[lane] = start[lane];
        conn->acked[lane] = start[lane];
        conn->resent_to[lane] = start[lane];
        if (start[lane] < conn->user->state.head[lane])
            bf_shard_want_replay(shard, conn, lane);
    }
    if (!(mask & 1u << BF_STREAM_BROADCAST))
        return;
    struct bf_cmd_conn_frame cmd = {.conn = conn->id, .seq = b};
    bool sent =
        bf_shard_send_conn(shard, conn->worker, BF_LANE_NORMAL, BF_CMD_OPEN_B, cmd, NULL, 0);
    BF_BUG_ON(!sent);
    conn->sent[BF_STREAM_BROADCAST] = b;
    if (b < bf_blog_head(shard->core->blog))
        bf_shard_want_replay(shard, conn, BF_STREAM_BROADCAST);
}

static bool replace(struct bf_shard *shard, struct bf_conn *conn)
{
    struct bf_cmd_close cmd = {.conn = conn->id, .code = BF_CLOSE_REPLACED};
    bool is_sent = bf_publisher_send(&shard->pub, conn->worker, BF_LANE_CRITICAL, BF_CMD_CLOSE,
                                     &cmd, (struct bf_block_ref){0});
    conn->is_leaving |= is_sent;
    return is_sent;
}

/* One socket a device: the newer one stays (close code 4003). */
static void evict_older(struct bf_shard *shard, const struct bf_conn *fresh)
{
    for (struct bf_conn *conn = fresh->user->conns; conn; conn = conn->next) {
        if (conn == fresh || fresh->device_hash == 0 || conn->device_hash != fresh->device_hash ||
            conn->connected_ms > fresh->connected_ms || conn->is_leaving)
            continue;
        /* a full ring only delays it: the worker of the new socket evicts by itself where it can */
        replace(shard, conn);
    }
}

/* One person holds websocket.per_user connections at most: the oldest give way (4003). */
static void evict_excess(struct bf_shard *shard, const struct bf_conn *fresh)
{
    uint32_t limit = bf_core_conf(shard->core)->ws_per_user;
    for (;;) {
        struct bf_conn *oldest = NULL;
        uint32_t count = 0;
        for (struct bf_conn *conn = fresh->user->conns; conn; conn = conn->next) {
            if (conn->is_leaving)
                continue;
            count++;
            if (conn != fresh && (!oldest || conn->connected_ms <= oldest->connected_ms))
                oldest = conn;
        }
        if (limit == 0 || count <= limit || !oldest || !replace(shard, oldest))
            return; /* a full ring only delays it: the next connect looks again */
        bf_count(BF_CM_M_connections_over_limit, 1);
    }
}

static bool has_room_for_connect(struct bf_shard *shard, uint32_t worker)
{
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        if (!bf_publisher_has_room(&shard->pub, worker, (enum bf_lane)lane, CONNECT_SLOTS))
            return false;
    return true;
}

static void refuse_connect(struct bf_shard *shard, uint32_t worker, bf_conn_id id, uint16_t code)
{
    struct bf_cmd_close cmd = {.conn = id, .code = code};
    (void)bf_publisher_send(&shard->pub, worker, BF_LANE_CRITICAL, BF_CMD_CLOSE, &cmd,
                            (struct bf_block_ref){0});
}

static void finish_connect(struct bf_shard *shard, struct bf_conn *conn,
                           const struct bf_rcpt_connect *c)
{
    uint64_t start[BF_LANE_COUNT];
    if (conn->unopened == 0)
        return;
    uint64_t b;
    plan_resume(shard, conn->user, c, start, &b);
    open_streams(shard, conn, conn->unopened, start, b);
}

/* Heads and count as they are now. The welcome carries the count, so if this is the only socket
 * nothing else has to be sent. */
static void look_before_welcome(struct bf_shard *shard, struct bf_user *user)
{
    bf_shard_settle_heads(shard, user);
    bf_shard_recount_unread(shard, user, shard->turn.now_ms);
    if (!user->conns && user->state.is_telling) {
        user->state.is_telling = false;
        bf_shard_mark_dirty(shard, user);
    }
}

/* Returns false when a ring or the blocks are full: the receipt is kept and tried again. */
static bool answer_connect(struct bf_shard *shard, const struct bf_receipt_msg *msg)
{
    struct bf_rcpt_connect c;
    memcpy(&c, msg->bytes, sizeof(c));
    if (!has_room_for_connect(shard, msg->worker))
        return false;
    struct bf_conn *known = bf_conn_find(&shard->conns, msg->worker, c.conn);
    if (known) { /* answered before a restart; our predecessor may have died between its markers */
        finish_connect(shard, known, &c);
        return true;
    }
    struct bf_user *user = bf_shard_user_of_token(shard, uid_of(&c, msg->bytes));
    if (user)
        look_before_welcome(shard, user);
    struct bf_conn *conn = user ? bf_conn_add(&shard->conns, msg->worker, c.conn, user) : NULL;
    if (!conn) {
        refuse_connect(shard, msg->worker, c.conn, user ? BF_CLOSE_OVERLOADED : BF_CLOSE_FORBIDDEN);
        return true;
    }
    conn->device_hash = c.device;
    conn->connected_ms = c.connected_ms;
    conn->device_len = (uint8_t)c.device_len;
    memcpy(conn->device, msg->bytes + sizeof(c) + c.user_len, c.device_len);
    uint64_t start[BF_LANE_COUNT], b;
    bool resumed = plan_resume(shard, user, &c, start, &b);
    if (!send_welcome(shard, conn, &c, resumed, bf_blog_head(shard->core->blog))) {
        bf_conn_unlink(&shard->conns, conn);
        return false;
    }
    open_streams(shard, conn, (1u << BF_STREAM_COUNT) - 1u, start, b);
    evict_older(shard, conn);
    evict_excess(shard, conn);
    return true;
}

static void take_connect(struct bf_shard *shard, struct bf_receipt_msg *msg)
{
    struct bf_rcpt_connect c;
    memcpy(&c, msg->bytes, msg->len < sizeof(c) ? msg->len : sizeof(c));
    if (!is_sound(msg, &c)) {
        bf_count(BF_CM_M_receipts_bad, 1);
        bf_receipt_msg_done(msg);
        return;
    }
    /* order is kept: once one waits, all later ones wait */
    if (!shard->presence_known || shard->held || !answer_connect(shard, msg)) {
        bf_shard_hold(shard, &msg->msg);
        return;
    }
    shard->receipts[shard->receipt_count++] = msg;
}

/* After a census and the connects before it: markers that nobody can reconstruct open at the head.
 */
void bf_shard_open_lost(struct bf_shard *shard, struct bf_conn *conn)
{
    if (conn->unopened == 0 || !has_room_for_connect(shard, conn->worker))
        return;
    open_streams(shard, conn, conn->unopened, conn->user->state.head,
                 bf_blog_head(shard->core->blog));
}

void bf_shard_hold(struct bf_shard *shard, struct bf_msg *msg)
{
    msg->next = NULL;
    *shard->held_tail = msg;
    shard->held_tail = &msg->next;
}

void bf_shard_retry_held(struct bf_shard *shard)
{
    if (!shard->presence_known || !shard->held)
        return;
    while (shard->held && shard->batched < BF_SHARD_BATCH_MAX / 2) {
        struct bf_receipt_msg *msg = (struct bf_receipt_msg *)shard->held;
        if (!answer_connect(shard, msg))
            break;
        shard->held = msg->msg.next;
        if (!shard->held)
            shard->held_tail = &shard->held;
        shard->receipts[shard->receipt_count++] = msg;
        shard->batched++;
    }
    if (shard->batched)
        bf_shard_commit(shard);
}

/* What a person's last connection has not acknowledged will not be: its fallbacks need not wait. */
static void hurry_fallbacks(struct bf_shard *shard, const struct bf_user *user)
{
    if (user->conns || user->devices == BF_USER_DEVICES_NONE || !shard->outbound.channels ||
        shard->turn.conf->ack_deadline_ms <= BF_FALLBACK_GONE_MS)
        return;
    bf_outbound_hurry(&shard->outbound, bf_user_uid(user));
}

static void take_gone(struct bf_shard *shard, const struct bf_receipt_msg *msg)
{
    struct bf_rcpt_gone gone;
    memcpy(&gone, msg->bytes, sizeof(gone));
    struct bf_conn *conn = bf_conn_find(&shard->conns, msg->worker, gone.conn);
    if (!conn)
        return;
    struct bf_user *user = conn->user;
    bf_conn_unlink(&shard->conns, conn);
    hurry_fallbacks(shard, user);
}

/* Joins (from, to] to the user's latest acknowledged interval; an older island goes to the store.
 */
static bool merge_ack(struct bf_shard *shard, struct bf_user *user, enum bf_lane lane,
                      uint64_t from, uint64_t to)
{
    struct bf_user_state *s = &user->state;
    if (to > s->head[lane])
        to = s->head[lane];
    if (to <= s->ack_to[lane])
        return false;
    if (from > s->ack_to[lane]) {
        if (s->ack_to[lane] > s->ack_from[lane])
            bf_batch_put_ack(shard->batch, bf_user_uid(user), lane, s->ack_from[lane],
                             s->ack_to[lane]);
        s->ack_from[lane] = from;
    }
    s->ack_to[lane] = to;
    bf_shard_mark_dirty(shard, user);
    return true;
}

static void take_ack(struct bf_shard *shard, const struct bf_receipt_msg *msg)
{
    struct bf_rcpt_ack ack;
    memcpy(&ack, msg->bytes, sizeof(ack));
    struct bf_user *user = bf_user_find_key(&shard->users, ack.user);
    struct bf_conn *conn = bf_conn_find(&shard->conns, msg->worker, ack.conn);
    if (!user || ack.lane >= BF_LANE_COUNT || (!conn && shard->core->is_other_epoch))
        return;
    uint64_t before = user->state.ack_to[ack.lane];
    uint64_t begin = ack.from > before ? ack.from : before;
    if (merge_ack(shard, user, (enum bf_lane)ack.lane, ack.from, ack.to))
        bf_funnel_count(BF_FUNNEL_DELIVERED, (enum bf_lane)ack.lane, BF_CHANNEL_INAPP,
                        user->state.ack_to[ack.lane] - begin);
    if (!conn || ack.to <= conn->acked[ack.lane])
        return;
    /* newer than the turn's: the frame may have left in this very turn */
    uint64_t now = bf_mono_ms();
    if (conn->unacked_since_ms[ack.lane])
        bf_stage_add(BF_STAGE_ACK, (enum bf_lane)ack.lane,
                     (now - conn->unacked_since_ms[ack.lane]) * 1000);
    conn->acked[ack.lane] = ack.to;
    conn->unacked_since_ms[ack.lane] = 0;
    if (conn->acked[ack.lane] < conn->sent[ack.lane])
        bf_shard_start_deadline(shard, conn, (enum bf_lane)ack.lane, now);
}

static void take_behind(struct bf_shard *shard, const struct bf_receipt_msg *msg)
{
    struct bf_rcpt_behind behind;
    memcpy(&behind, msg->bytes, sizeof(behind));
    struct bf_conn *conn = bf_conn_find(&shard->conns, msg->worker, behind.conn);
    if (!conn || behind.stream >= BF_STREAM_COUNT)
        return;
    conn->sent[behind.stream] = behind.sent;
    bf_shard_want_replay(shard, conn, behind.stream);
}

static const uint32_t client_marks[BF_CLIENT_OP_COUNT] = {
    [BF_CLIENT_READ] = BF_MARK_READ,
    [BF_CLIENT_SEEN] = BF_MARK_SEEN,
    [BF_CLIENT_ARCHIVE] = BF_MARK_ARCHIVED,
};

static void answer_client(struct bf_shard *shard, uint32_t worker, bf_conn_id conn,
                          struct bf_bytes ref, int rc, uint32_t unread)
{
    uint8_t frame[512];
    size_t len = rc == 0 ? bf_frame_ok(frame, sizeof(frame), ref, unread)
                         : bf_frame_error(frame, sizeof(frame), "not_found",
                                          "no notification of this user has that id", false, ref);
    struct bf_cmd_conn_frame cmd = {.conn = conn, .flags = BF_REPLY_IN_ORDER};
    if (len <= sizeof(frame)) /* no room: the client asks again, the mark is idempotent */
        (void)bf_shard_send_conn(shard, worker, BF_LANE_NORMAL, BF_CMD_REPLY, cmd, frame,
                                 (uint32_t)len);
}

static void take_client(struct bf_shard *shard, const struct bf_receipt_msg *msg)
{
    struct bf_rcpt_client c;
    struct bf_id id;
    memcpy(&c, msg->bytes, msg->len < sizeof(c) ? msg->len : sizeof(c));
    if (msg->len < sizeof(c) + c.ref_len + c.id_len || c.op >= BF_CLIENT_OP_COUNT ||
        c.ref_len > BF_REF_BYTES_MAX * 6u) {
        bf_count(BF_CM_M_receipts_bad, 1);
        return;
    }
    const char *text = (const char *)msg->bytes + sizeof(c);
    struct bf_user *user = bf_user_find_key(&shard->users, c.user);
    int rc = BF_ERR_NOT_FOUND;
    if (user && bf_id_parse(text + c.ref_len, c.id_len, &id))
        rc = bf_shard_mark(shard, user, &id, client_marks[c.op], msg->worker, c.conn);
    answer_client(shard, msg->worker, c.conn, (struct bf_bytes){.at = text, .len = c.ref_len}, rc,
                  user ? user->state.unread : 0);
}

/* A connection that outlived our predecessor (DESIGN 4.8): presence, and how far it got. */
static void take_census_conn(struct bf_shard *shard, const struct bf_receipt_msg *msg)
{
    struct bf_rcpt_census_conn c;
    memcpy(&c, msg->bytes, sizeof(c));
    struct bf_user *user = bf_user_find_key(&shard->users, c.user);
    if (!(c.flags & BF_CENSUS_WELCOMED))
        return; /* its connect receipt is still in the ring */
    struct bf_conn *conn = user ? bf_conn_add(&shard->conns, msg->worker, c.conn, user) : NULL;
    if (!conn) {
        /* its user is gone from the store (erased, or another store): it must connect again */
        refuse_connect(shard, msg->worker, c.conn, BF_CLOSE_OVERLOADED);
        return;
    }
    conn->device_hash = c.device;
    conn->is_masked = c.flags & BF_CENSUS_MASKED;
    memcpy(conn->sent, c.sent, sizeof(conn->sent));
    memcpy(conn->opened, c.opened, sizeof(conn->opened));
    memcpy(conn->acked, c.acked, sizeof(conn->acked));
    memcpy(conn->resent_to, c.sent, sizeof(conn->resent_to));
    conn->unopened = (uint8_t)(~c.flags & ((1u << BF_STREAM_COUNT) - 1u));
    if (shard->core->is_other_epoch)
        return; /* sent away when the census is complete */
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        if (c.acked[lane] > c.opened[lane])
            merge_ack(shard, user, (enum bf_lane)lane, c.opened[lane], c.acked[lane]);
}

static void take_push(struct bf_shard *shard, const struct bf_receipt_msg *msg)
{
    struct bf_rcpt_push said;
    memcpy(&said, msg->bytes, sizeof(said));
    struct bf_bytes body = {(const char *)msg->bytes + sizeof(said), msg->len - sizeof(said)};
    if (body.len > said.body_len)
        body.len = said.body_len;
    const struct bf_provider_answer answer = {.attempt = said.push_id,
                                              .channel = BF_CHANNEL_PUSH,
                                              .end = (enum bf_answer_end)said.end,
                                              .why = said.why,
                                              .status = said.status,
                                              .retry_after_s = said.retry_after_s,
                                              .answer_us = said.answer_us,
                                              .body = body};
    bf_outbound_answer(&shard->outbound, &answer);
}

void bf_shard_receipt(struct bf_shard *shard, struct bf_receipt_msg *msg)
{
    switch (msg->kind) {
    case BF_RCPT_CONNECT:
        take_connect(shard, msg);
        return; /* released when answered */
    case BF_RCPT_GONE:
        take_gone(shard, msg);
        break;
    case BF_RCPT_ACK:
        take_ack(shard, msg);
        break;
    case BF_RCPT_BEHIND:
        take_behind(shard, msg);
        break;
    case BF_RCPT_CLIENT:
        take_client(shard, msg);
        break;
    case BF_RCPT_CENSUS_CONN:
        take_census_conn(shard, msg);
        break;
    case BF_RCPT_PUSH:
        take_push(shard, msg);
        break;
    default:
        bf_count(BF_CM_M_receipts_bad, 1);
        break;
    }
    shard->receipts[shard->receipt_count++] = msg;
}
