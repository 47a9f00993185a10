/*
 * A dataplane of one thread for tests of the control process: it reads the commands that shards
 * send to its workers, gives blocks back, answers the census, and keeps for each socket what its
 * client knows of the unread count. It follows the sequence rule of shm/command.h, queues nothing,
 * and may stand still for a while, so that rings and blocks run full.
 */
#pragma once

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/cursor.h"
#include "belfry/plane.h"
#include "belfry/shm/layout.h"

#define FAKE_WORKERS 2u
#define FAKE_SOCKETS 12u

struct fake_socket {
    bf_conn_id conn; /* 0: closed */
    struct bf_user_key key;
    uint32_t user; /* the test's number of it */
    uint32_t worker;
    bool is_welcomed;
    uint8_t open;      /* bit of each stream */
    uint8_t is_behind; /* bit of each stream */
    uint64_t sent[BF_STREAM_COUNT];
    uint64_t opened[BF_LANE_COUNT];
    uint32_t unread; /* as welcome, state and ok said; each n after them adds one */
    bool is_stale;   /* for the test: not told since it set this */
    uint32_t states; /* state frames taken */
    uint32_t answers, errors;
};

static struct {
    struct bf_region *region;
    void *memory;
    uint32_t shards;
    struct bf_ring_consumer commands[FAKE_WORKERS][BF_PRODUCERS_MAX][BF_LANE_COUNT];
    struct bf_ring_producer returns[FAKE_WORKERS][BF_PRODUCERS_MAX];
    struct bf_ring_producer receipts[FAKE_WORKERS];
    struct fake_socket sockets[FAKE_SOCKETS];
    uint32_t next_conn;
} fake;

static inline void fake_start(const struct bf_conf *conf)
{
    unsigned long bytes = bf_region_bytes(conf);
    fake.memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    memset(fake.memory, 0, bytes);
    cr_assert_eq(bf_region_create(fake.memory, bytes, conf, &fake.region), 0);
    cr_assert_geq(fake.region->geometry.workers, FAKE_WORKERS);
    memset(fake.sockets, 0, sizeof(fake.sockets));
    for (uint32_t w = 0; w < FAKE_WORKERS; w++) {
        for (uint32_t p = 0; p < fake.region->geometry.producers; p++) {
            for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
                bf_ring_consumer_attach(&fake.commands[w][p][lane],
                                        bf_command_ring(fake.region, p, w, lane),
                                        bf_command_control(fake.region, p, w, lane));
            bf_ring_producer_attach(&fake.returns[w][p], bf_return_ring(fake.region, p, w),
                                    bf_return_control(fake.region, p, w), 1);
        }
        bf_ring_producer_attach(&fake.receipts[w], bf_receipt_ring(fake.region, w),
                                bf_receipt_control(fake.region, w), 1);
    }
}

static inline void fake_stop(void)
{
    free(fake.memory);
    fake.region = NULL;
}

static inline void fake_tell(uint32_t worker, enum bf_rcpt_kind kind, const void *bytes,
                             uint32_t len)
{
    cr_assert(bf_ring_put_message(&fake.receipts[worker], (uint16_t)kind, bytes, len));
    bf_ring_publish(&fake.receipts[worker]);
    bf_doorbell_ring(&fake.region->receipts_bell);
}

/* ---- sockets ---- */

static inline struct fake_socket *fake_connect(uint32_t number, const char *user)
{
    struct fake_socket *s = fake.sockets;
    while (s < fake.sockets + FAKE_SOCKETS && s->conn)
        s++;
    if (s == fake.sockets + FAKE_SOCKETS)
        return NULL;
    uint32_t slot = (uint32_t)(s - fake.sockets);
    uint32_t len = (uint32_t)strlen(user);
    uint8_t message[sizeof(struct bf_rcpt_connect) + 64];
    *s = (struct fake_socket){.conn = (uint64_t)++fake.next_conn << 32 | slot,
                              .key = bf_user_key_of(fake.region->user_secret, "", 0, user, len),
                              .user = number,
                              .worker = slot % FAKE_WORKERS};
    struct bf_rcpt_connect c = {.user = s->key, .conn = s->conn, .user_len = (uint16_t)len};
    memcpy(message, &c, sizeof(c));
    memcpy(message + sizeof(c), user, len);
    fake_tell(s->worker, BF_RCPT_CONNECT, message, (uint32_t)sizeof(c) + len);
    return s;
}

static inline void fake_disconnect(struct fake_socket *s)
{
    struct bf_rcpt_gone gone = {.user = s->key, .conn = s->conn};
    fake_tell(s->worker, BF_RCPT_GONE, &gone, sizeof(gone));
    s->conn = 0;
}

/* A read, seen or archive frame of the client. */
static inline void fake_mark(const struct fake_socket *s, enum bf_client_op op,
                             const struct bf_id *id)
{
    uint8_t message[sizeof(struct bf_rcpt_client) + 64];
    struct bf_rcpt_client c = {.user = s->key,
                               .conn = s->conn,
                               .op = (uint32_t)op,
                               .ref_len = 1,
                               .id_len = BF_UUID_TEXT_BYTES};
    memcpy(message, &c, sizeof(c));
    message[sizeof(c)] = '1';
    bf_id_text(id, (char *)message + sizeof(c) + 1);
    fake_tell(s->worker, BF_RCPT_CLIENT, message, (uint32_t)sizeof(c) + 1 + BF_UUID_TEXT_BYTES);
}

/* What each worker answers a census of another control process with. */
static inline void fake_census(uint64_t ticket)
{
    for (uint32_t w = 0; w < FAKE_WORKERS; w++) {
        for (uint32_t i = 0; i < FAKE_SOCKETS; i++) {
            const struct fake_socket *s = &fake.sockets[i];
            if (!s->conn || s->worker != w)
                continue;
            struct bf_rcpt_census_conn c = {.ticket = ticket, .user = s->key, .conn = s->conn};
            c.flags = s->open | BF_CENSUS_WELCOMED;
            memcpy(c.sent, s->sent, sizeof(c.sent));
            memcpy(c.opened, s->opened, sizeof(c.opened));
            memcpy(c.acked, s->opened, sizeof(c.acked));
            fake_tell(w, BF_RCPT_CENSUS_CONN, &c, sizeof(c));
        }
    }
    for (uint32_t w = 0; w < fake.region->geometry.workers; w++) {
        struct bf_rcpt_census_done done = {.ticket = ticket, .worker = w};
        fake_tell(w, BF_RCPT_CENSUS_DONE, &done, sizeof(done));
    }
}

/* ---- commands ---- */

static inline bool fake_has(struct bf_bytes frame, const char *text)
{
    return memmem(frame.at, frame.len, text, strlen(text)) != NULL;
}

static inline uint32_t fake_number(struct bf_bytes frame, const char *name)
{
    const char *at = memmem(frame.at, frame.len, name, strlen(name));
    cr_assert_not_null(at, "%s in %.*s", name, (int)frame.len, frame.at);
    return (uint32_t)strtoul(at + strlen(name), NULL, 10);
}

static inline uint32_t fake_count(struct bf_bytes frames, const char *text)
{
    uint32_t count = 0;
    const char *end = frames.at + frames.len;
    for (const char *at = frames.at; (at = memmem(at, (size_t)(end - at), text, strlen(text)));
         at++)
        count++;
    return count;
}

static inline struct bf_bytes fake_block(struct bf_block_ref ref)
{
    const struct bf_block *block = ref.lap ? bf_block_find(fake.region, ref) : NULL;
    if (!block)
        return (struct bf_bytes){0};
    return (struct bf_bytes){(const char *)bf_block_data(fake.region, block), block->len};
}

static inline void fake_return(uint32_t worker, struct bf_block_ref ref)
{
    uint32_t position = 0;
    if (!ref.lap)
        return;
    struct bf_ring_producer *ring = &fake.returns[worker][bf_blocks(fake.region)[ref.index].owner];
    cr_assert(bf_ring_reserve(ring, 1, &position));
    memcpy(bf_ring_slot(ring, position)->payload, &ref, sizeof(ref));
    bf_slot_seal(ring, position, BF_RETURN_BLOCK, 0, 1, sizeof(ref));
    bf_ring_publish(ring);
}

/* One frame, or a replay's several, under the sequence rule. */
static inline void fake_take_n(struct fake_socket *s, uint32_t stream, uint64_t prev, uint64_t seq,
                               struct bf_bytes frames, bool is_replay)
{
    bool fits = is_replay ? prev == s->sent[stream] : prev <= s->sent[stream];
    if (!(s->open & 1u << stream) || seq <= s->sent[stream])
        return;
    if (!fits) {
        struct bf_rcpt_behind behind = {
            .user = s->key, .conn = s->conn, .sent = s->sent[stream], .stream = stream};
        fake_tell(s->worker, BF_RCPT_BEHIND, &behind, sizeof(behind));
        return;
    }
    s->sent[stream] = seq;
    s->unread += frames.len ? fake_count(frames, "{\"t\":\"n\"") : 0;
}

static inline void fake_to_user(uint32_t worker, uint32_t lane, uint16_t kind,
                                const struct bf_cmd_frame *cmd)
{
    struct bf_bytes frame = fake_block(cmd->block);
    for (uint32_t i = 0; i < FAKE_SOCKETS; i++) {
        struct fake_socket *s = &fake.sockets[i];
        if (!s->conn || s->worker != worker || !bf_user_key_is_equal(s->key, cmd->user))
            continue;
        if (kind == BF_CMD_NOTIFY) {
            fake_take_n(s, lane, cmd->prev, cmd->seq, frame, false);
        } else if (s->conn != cmd->seq && s->is_welcomed && (s->open & 1u << lane)) {
            s->unread = fake_number(frame, "\"unread\":");
            s->is_stale = false;
            s->states++;
        }
    }
}

static inline void fake_to_socket(struct fake_socket *s, uint32_t lane, uint16_t kind,
                                  const struct bf_cmd_conn_frame *cmd)
{
    struct bf_bytes frame = fake_block(cmd->block);
    switch (kind) {
    case BF_CMD_WELCOME:
        s->is_welcomed = true;
        s->unread = fake_number(frame, "\"unread\":");
        break;
    case BF_CMD_OPEN:
    case BF_CMD_OPEN_B:
        lane = kind == BF_CMD_OPEN_B ? BF_STREAM_BROADCAST : lane;
        s->open |= (uint8_t)(1u << lane);
        s->sent[lane] = cmd->seq;
        if (kind == BF_CMD_OPEN)
            s->opened[lane] = cmd->seq;
        break;
    case BF_CMD_REPLAY:
        fake_take_n(s, lane, cmd->prev, cmd->seq, frame, true);
        break;
    case BF_CMD_REPLY:
        if (fake_has(frame, "\"t\":\"ok\"")) {
            s->unread = fake_number(frame, "\"unread\":");
            s->is_stale = false;
            s->answers++;
        } else if (fake_has(frame, "\"t\":\"error\"")) {
            cr_assert(fake_has(frame, "\"ref\":1"));
            s->errors++;
        }
        break;
    default:
        break;
    }
}

static inline void fake_act(uint32_t worker, uint32_t lane, const struct bf_slot *slot)
{
    if (slot->kind == BF_CMD_NOTIFY || slot->kind == BF_CMD_STATE) {
        const struct bf_cmd_frame *cmd = (const void *)slot->payload;
        fake_to_user(worker, lane, slot->kind, cmd);
        fake_return(worker, cmd->block);
    } else if (slot->kind >= BF_CMD_REPLAY && slot->kind <= BF_CMD_REPLY &&
               slot->kind != BF_CMD_BROADCAST) {
        const struct bf_cmd_conn_frame *cmd = (const void *)slot->payload;
        struct fake_socket *s = &fake.sockets[(uint32_t)cmd->conn % FAKE_SOCKETS];
        if (s->conn == cmd->conn)
            fake_to_socket(s, lane, slot->kind, cmd);
        fake_return(worker, cmd->block);
    }
}

/* Takes all commands that wait. Returns how many. */
static inline uint32_t fake_turn(void)
{
    uint32_t taken = 0;
    for (uint32_t w = 0; w < FAKE_WORKERS; w++) {
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++) {
            for (uint32_t p = 0; p < fake.region->geometry.producers; p++) {
                struct bf_ring_consumer *ring = &fake.commands[w][p][lane];
                for (uint32_t n = bf_ring_ready_now(ring); n > 0; n--) {
                    const struct bf_slot *slot = bf_ring_peek(ring, ring->next);
                    cr_assert(bf_slot_is_valid(ring, ring->next));
                    fake_act(w, lane, slot);
                    ring->next++;
                    taken++;
                }
                bf_ring_release(ring, ring->next);
            }
        }
    }
    return taken;
}
