/*
 * Keys of the store: a table byte, then parts with their length in front (u8; every id has at most
 * 128 bytes) and big-endian numbers. So the rows of one user, one topic or one event are stored
 * together, and numbers sort. Keys are built on the stack, without allocation. Pure.
 */
#pragma once

#include "belfry/base/bug.h"
#include "belfry/base/id.h"
#include "store/store.h"
#include "store/tables.h"

/* Longest idempotency key kept as it is; a longer one is replaced by its 128-bit hash. */
#define BF_IDEM_KEY_BYTES_MAX 512u
/* The longest of all keys: table byte and idempotency key, or table, tenant, topic and user. */
#define BF_KEY_BYTES_MAX (1u + BF_IDEM_KEY_BYTES_MAX)

struct bf_key {
    uint32_t len;
    uint8_t at[BF_KEY_BYTES_MAX];
};

static inline void bf_key_begin(struct bf_key *k, enum bf_table table)
{
    k->at[0] = (uint8_t)table;
    k->len = 1;
}

static inline void bf_key_raw(struct bf_key *k, const void *at, size_t len)
{
    BF_BUG_ON(len > sizeof(k->at) - k->len);
    if (len > 0)
        memcpy(k->at + k->len, at, len);
    k->len += (uint32_t)len;
}

static inline void bf_key_u8(struct bf_key *k, unsigned v)
{
    uint8_t b = (uint8_t)v;
    bf_key_raw(k, &b, 1);
}

static inline void bf_key_be16(struct bf_key *k, unsigned v)
{
    uint8_t b[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    bf_key_raw(k, b, 2);
}

static inline void bf_key_be64(struct bf_key *k, uint64_t v)
{
    uint64_t be = __builtin_bswap64(v);
    bf_key_raw(k, &be, 8);
}

/* Callers have checked the length of ids before (ING-11); a longer one here is our own mistake. */
static inline void bf_key_part(struct bf_key *k, struct bf_bytes part)
{
    BF_BUG_ON(part.len > UINT8_MAX);
    bf_key_u8(k, (unsigned)part.len);
    bf_key_raw(k, part.at, part.len);
}

static inline void bf_key_uid(struct bf_key *k, enum bf_table table, struct bf_uid uid)
{
    bf_key_begin(k, table);
    bf_key_part(k, uid.tenant);
    bf_key_part(k, uid.user);
}

static inline void bf_key_id(struct bf_key *k, enum bf_table table, const struct bf_id *id)
{
    bf_key_begin(k, table);
    bf_key_raw(k, id->bytes, sizeof(id->bytes));
}

static inline void bf_key_item(struct bf_key *k, struct bf_uid uid, enum bf_lane lane, uint64_t seq)
{
    bf_key_uid(k, BF_T_INBOX, uid);
    bf_key_u8(k, lane);
    bf_key_be64(k, seq);
}

static inline void bf_key_ack(struct bf_key *k, struct bf_uid uid, enum bf_lane lane, uint64_t to)
{
    bf_key_uid(k, BF_T_ACK, uid);
    bf_key_u8(k, lane);
    bf_key_be64(k, to);
}

static inline void bf_key_topic(struct bf_key *k, enum bf_table table, struct bf_bytes tenant,
                                struct bf_bytes topic)
{
    bf_key_begin(k, table);
    bf_key_part(k, tenant);
    bf_key_part(k, topic);
}

static inline void bf_key_dlq(struct bf_key *k, uint8_t channel, uint64_t at_ms,
                              const struct bf_id *event_id)
{
    bf_key_begin(k, BF_T_DLQ);
    bf_key_u8(k, channel);
    bf_key_be64(k, at_ms);
    bf_key_raw(k, event_id->bytes, sizeof(event_id->bytes));
}

/* The end of an outcome's key: the endpoint, if it has one, and the attempt at it. A row without an
 * endpoint is in-app, of all devices, or of a release that told ten bits of a device by |attempt|.
 */
struct bf_attempt_key {
    struct bf_id endpoint;
    uint16_t attempt;
};
void bf_key_outcome(struct bf_key *k, const struct bf_id *event_id, struct bf_uid uid,
                    uint8_t channel, const struct bf_attempt_key *attempt);
void bf_key_user_outcome(struct bf_key *k, struct bf_uid uid, const struct bf_id *event_id,
                         uint8_t channel, const struct bf_attempt_key *attempt);
/* Reads to the end of the key. */
void bf_key_get_attempt(struct bf_reader *k, struct bf_attempt_key *ret);
void bf_key_idem(struct bf_key *k, struct bf_bytes key);
/* The user's id is personal data, so only a hash of it is left after an erasure (PRF-5). */
void bf_key_erased(struct bf_key *k, struct bf_uid uid);
/* 64-bit hash of a uid, kept in id rows so that a message is found for its own user only. */
uint64_t bf_uid_hash(struct bf_uid uid);

/* Turns a prefix into the first key after all keys that begin with it. */
void bf_key_end(struct bf_key *end, const struct bf_key *prefix);

/* Parts of a stored key, borrowed from it. The reader fails on a key that has another form. */
static inline struct bf_bytes bf_key_get_part(struct bf_reader *r)
{
    return bf_get_bytes(r, bf_get_u8(r));
}

static inline struct bf_uid bf_key_get_uid(struct bf_reader *r)
{
    struct bf_uid uid;
    uid.tenant = bf_key_get_part(r);
    uid.user = bf_key_get_part(r);
    return uid;
}

/* A reader of a key, after its table byte. */
static inline struct bf_reader bf_key_reader(struct bf_bytes key)
{
    return (struct bf_reader){.buf = (const uint8_t *)key.at, .len = key.len, .at = 1};
}
