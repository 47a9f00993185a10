/*
 * The store (DESIGN 1): the system of record of one node. Typed reads and write batches; no
 * decisions. Rows are kept by an engine (store/engine.h), today RocksDB (store/rocks/). Reads: any
 * thread. A batch: one thread. Every function that can fail returns 0 or a code of base/err.h
 * (BF_ERR_STORE after a failed write: the process must stop, DESIGN 4.15; BF_ERR_CORRUPT names a
 * record that does not decode: that key is skipped, the node goes on). Writes reach the OS (kill -9
 * safe); bf_store_sync makes them durable against power loss.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/id.h"
#include "belfry/base/limits.h"
#include "terms/status.h"
#include "terms/uid.h"

struct bf_store;
struct bf_batch;
struct bf_dlq_row;

struct bf_store_options {
    const char *dir; /* made if missing */
    const char
        *witness_dir; /* outside |dir|, see rocks/lineage.h; made if missing. NULL: no witness */
    uint32_t cache_mb;
    uint32_t write_buffer_mb;
};

/* Opens (creates) the store on the engine that the program is linked with (store/rocks/open.c);
 * engine.h opens it on another. |err| receives one line for a person on failure. A torn WAL tail is
 * tolerated, any other damage refused. Close marks a clean shutdown. */
int bf_store_open(const struct bf_store_options *options, struct bf_store **ret, char *err,
                  size_t err_len);
/* A write failed: every later one is refused, and only a new process, which recovers from the disk,
 * can go on (DESIGN 4.15). Any thread. */
bool bf_store_is_failed(const struct bf_store *s);
void bf_store_close(struct bf_store *store);
/* "<store id>-<count>": count rises when the store was not closed cleanly before a reboot (boot id
 * differs), or may not be the one that ran here last: a copy that was put back, a snapshot that was
 * rolled back (DESIGN 4.5, rocks/lineage.h). Valid while the store is open. */
const char *bf_store_epoch(const struct bf_store *store);
/* Writes into the witness file how far the store is written. Every second or so; one thread. */
void bf_store_witness(struct bf_store *store);
int bf_store_sync(struct bf_store *store);
/* Copies the store as it is now into a new directory. Any thread. */
int bf_store_checkpoint(struct bf_store *store, const char *dir, char *err, size_t err_len);
/* Free bytes and size of the file system below the store. */
int bf_store_disk(const struct bf_store *store, uint64_t *ret_free, uint64_t *ret_size);

/* To be called once by each thread that reads or writes much. */
void bf_store_enter_thread(struct bf_store *store);
struct bf_batch *bf_batch_create(struct bf_store *store);
void bf_batch_destroy(struct bf_batch *batch);
void bf_batch_clear(struct bf_batch *batch);
uint32_t bf_batch_count(const struct bf_batch *batch);
/* All or nothing; clears the batch on success. sync: durable when it returns. */
int bf_batch_write(struct bf_batch *batch, bool sync);

/* ---- users ---- */

/* Per (user, lane): seq head, and the latest acknowledged interval (ack_from, ack_to]. */
struct bf_user_state {
    uint64_t head[BF_LANE_COUNT];
    uint64_t ack_from[BF_LANE_COUNT];
    uint64_t ack_to[BF_LANE_COUNT];
    /* wall: from then on an unread item may have expired; UINT64_MAX: none expires; 0: not known.
     * For an item that expires within BF_SHORT_TTL_MS this row is written together with it, so it
     * is right after a kill. */
    uint64_t unread_due_ms;
    uint32_t unread;
    uint32_t stored;  /* inbox items kept */
    uint32_t version; /* in memory only: rises with each change of the inbox or of |unread| */
    /* The row was read after a kill: the counts may be too low, and the heads are set to the end of
     * their step, |gap| above what was written. bf_store_settle_heads finds out what they were. */
    bool is_rounded;
    /* The user's sockets may not have been told of a change that is durable (fanout/unread.c). */
    bool is_telling;
    bool has_gap; /* false also if the row is so old that later messages may be gone */
    uint8_t gap[BF_LANE_COUNT];
};

void bf_batch_put_user(struct bf_batch *b, struct bf_uid uid, struct bf_bytes profile_json);
void bf_batch_put_prefs(struct bf_batch *b, struct bf_uid uid, struct bf_bytes prefs_json);
/* A row is written for the first of every BF_SEQ_STEP messages of a lane; after a kill the head is
 * taken to be at the end of that step, so no seq is ever given twice. |is_exact|: this is the head
 * itself (a clean stop). */
#define BF_SEQ_STEP 16u
/* For a message that expires sooner the head is written at once; for others the inbox rows show
 * where the heads are. */
#define BF_SHORT_TTL_MS (UINT64_C(7) * 86400u * 1000u)
void bf_batch_put_state(struct bf_batch *b, struct bf_uid uid, const struct bf_user_state *state,
                        uint64_t now_ms, bool is_exact);
/* Lowers rounded heads to the last message that exists. Call it before the user gets a message,
 * because afterwards heads only rise. Does nothing without |has_gap|. */
void bf_store_settle_heads(struct bf_store *s, struct bf_uid uid, struct bf_user_state *state);
/* Deletes everything of the user: profile, prefs, state, inbox, ids, acks, subscriptions, status
 * rows, devices, queued pushes. Writes a proof row {when, by} under a hash of the id (PRF-5). Whole
 * or not at all: after an error the batch is empty. */
int bf_batch_erase_user(struct bf_batch *b, struct bf_uid uid, uint64_t now_ms, struct bf_bytes by);
/* The same again, for what work that was under way has written since; without a proof row. Only
 * while the user does not exist. Changes nothing if there is nothing. */
int bf_batch_erase_rest(struct bf_batch *b, struct bf_uid uid, uint64_t erased_ms);
/* A dead letter of an erased user. */
void bf_batch_erase_letter(struct bf_batch *b, struct bf_uid uid, uint64_t erased_ms,
                           const struct bf_dlq_row *row);

/* Erasures whose bytes are still on the disk (erasing.c). A user may have several. */
struct bf_erasing_row {
    struct bf_uid uid;
    uint64_t erased_ms;
};
int bf_store_walk_erasing(struct bf_store *s,
                          int (*each)(void *arg, const struct bf_erasing_row *row), void *arg);
/* Rewrites the data files that hold rows of the erasures of up to |until_ms|; slow, see scrub.h.
 * Any one thread. 0, BF_ERR_STORE, BF_ERR_CORRUPT, -ECANCELED. */
struct bf_pace;
int bf_store_scrub(struct bf_store *s, uint64_t until_ms, const struct bf_pace *pace);
/* Ends a running one at once. */
void bf_store_stop_scrub(struct bf_store *s);
/* Deletes the entries of erasures up to |until_ms|: their bytes are gone. */
int bf_store_end_erasing(struct bf_store *s, uint64_t until_ms, const struct bf_pace *pace);

/* malloc'ed JSON into *ret_json (caller frees), length in *ret_len. BF_ERR_NOT_FOUND. */
int bf_store_get_user(struct bf_store *s, struct bf_uid uid, char **ret_json, size_t *ret_len);
int bf_store_get_prefs(struct bf_store *s, struct bf_uid uid, char **ret_json, size_t *ret_len);
/* Cheap: on RocksDB, memory answers. */
bool bf_store_has_user(struct bf_store *s, struct bf_uid uid);
/* The same of |count| users of a tenant at once. */
void bf_store_have_users(struct bf_store *s, struct bf_bytes tenant, const struct bf_bytes *users,
                         uint32_t count, bool *ret_have);
/* Whether the user was erased at or after |at_ms| (rows from before are not shown any more). */
bool bf_store_is_erased_since(struct bf_store *s, struct bf_uid uid, uint64_t at_ms);
int bf_store_get_state(struct bf_store *s, struct bf_uid uid, struct bf_user_state *ret);

/* Walks all users in key order. prefs.at NULL: none. Borrowed during the call; a non-zero result of
 * |each| ends the walk and is returned. */
typedef int (*bf_user_fn)(void *arg, struct bf_uid uid, const struct bf_user_state *state,
                          struct bf_bytes prefs_json);
int bf_store_walk_users(struct bf_store *s, bf_user_fn each, void *arg);

/* ---- inbox ---- */

#define BF_ITEM_READ     (1u << 0)
#define BF_ITEM_SEEN     (1u << 1)
#define BF_ITEM_ARCHIVED (1u << 2)
#define BF_ITEM_DELETED  (1u << 3) /* kept until it expires, because its id must stay known */

struct bf_item {
    struct bf_id id; /* message id */
    struct bf_id event_id;
    enum bf_lane lane;
    uint64_t seq;
    uint64_t prev; /* seq due before it in this lane when it was stored */
    uint64_t created_ms;
    uint64_t expires_ms; /* dropped by compaction after it; readers skip it at once */
    uint64_t changed_ms; /* last change of flags */
    uint32_t flags;
    uint32_t collapse;        /* hash of the collapse key, 0 = none */
    struct bf_bytes fragment; /* struct bf_event.fragment */
};

/* Whether the person can see the item. What is not shown can be neither read nor marked. */
static inline bool bf_item_is_shown(const struct bf_item *item, uint64_t now_ms)
{
    return !(item->flags & BF_ITEM_DELETED) && (item->expires_ms == 0 || item->expires_ms > now_ms);
}

/* What "unread" means, for lists and counts alike: shown, not archived, not read. What was trimmed
 * or erased has no row. Two items with one collapse key are two items: the key replaces frames that
 * wait for a slow socket, not items of the inbox. */
static inline bool bf_item_is_unread(const struct bf_item *item, uint64_t now_ms)
{
    return bf_item_is_shown(item, now_ms) && !(item->flags & (BF_ITEM_READ | BF_ITEM_ARCHIVED));
}

struct bf_event_row;
/* Inbox row and id row, one write. |event| not NULL: the event has this one recipient, and its row
 * is kept in the id row (a message id begins like its event's id, so either id finds it). */
void bf_batch_put_item(struct bf_batch *b, struct bf_uid uid, const struct bf_item *item,
                       const struct bf_event_row *event);
/* The inbox row again, with other flags. */
void bf_batch_put_flags(struct bf_batch *b, struct bf_uid uid, const struct bf_item *item);
/* Ack interval (from, to] of a lane, beyond the latest one kept in the state. */
void bf_batch_put_ack(struct bf_batch *b, struct bf_uid uid, enum bf_lane lane, uint64_t from,
                      uint64_t to);

/* An item with its own memory: free with bf_item_free. */
struct bf_item_copy {
    struct bf_item item;
    char *memory;
};
void bf_item_free(struct bf_item_copy *copy);

/* Whether the message id is known (the hot path of de-duplication: bloom-filtered), and where. */
void bf_store_prefetch_message(struct bf_store *s, const struct bf_id *id);
bool bf_store_find_message(struct bf_store *s, struct bf_uid uid, const struct bf_id *id,
                           enum bf_lane *ret_lane, uint64_t *ret_seq);
int bf_store_get_item(struct bf_store *s, struct bf_uid uid, enum bf_lane lane, uint64_t seq,
                      struct bf_item_copy *ret);
/* Items of one lane with from < seq <= to, oldest first. Expired and deleted ones are skipped. */
typedef int (*bf_item_fn)(void *arg, const struct bf_item *item);
int bf_store_walk_lane(struct bf_store *s, struct bf_uid uid, enum bf_lane lane, uint64_t from,
                       uint64_t to, uint64_t now_ms, bf_item_fn each, void *arg);

/* Newest first over all lanes (merge by created_ms, then lane, seq), strictly below the cursor. */
struct bf_inbox_cursor {
    uint64_t before[BF_LANE_COUNT]; /* UINT64_MAX = from the newest */
};
int bf_store_list_inbox(struct bf_store *s, struct bf_uid uid, struct bf_inbox_cursor *cursor,
                        bool unread_only, uint32_t limit, uint64_t now_ms, bf_item_fn each,
                        void *arg, bool *ret_more);
/* Deletes the inbox rows older than the cursor; of a lane that the cursor did not reach, all rows.
 */
int bf_batch_drop_below(struct bf_batch *b, struct bf_uid uid, const struct bf_inbox_cursor *cursor,
                        uint32_t *ret_dropped);
/* All of an inbox at once: how many items are unread, when the first of them expires, whether one
 * has expired unread (and is not compacted yet), and the item that was marked or that expired last.
 */
struct bf_unread {
    uint32_t count;
    uint64_t due_ms; /* UINT64_MAX: none expires */
    bool has_expired;
    bool has_latest;
    struct bf_item latest; /* without its fragment */
};
int bf_store_count_unread(struct bf_store *s, struct bf_uid uid, uint64_t now_ms,
                          struct bf_unread *ret);
bool bf_store_is_acked(struct bf_store *s, struct bf_uid uid, const struct bf_user_state *state,
                       enum bf_lane lane, uint64_t seq);

/* ---- delivery status ---- */

struct bf_event_row {
    struct bf_id event_id;
    uint64_t accepted_ms;
    uint64_t expires_ms; /* of the row: status_ttl */
    uint8_t target;      /* enum bf_target */
    uint8_t lane;
    bool transient;
    bool is_broadcast; /* went onto the broadcast log: nobody has it in the inbox */
    struct bf_bytes tenant, producer, type, topic, traceparent;
    uint32_t recipient_count; /* named recipients; 0 for topic and broadcast */
    const struct bf_bytes *recipients;
    uint64_t bseq; /* broadcast */
};
void bf_batch_put_event_row(struct bf_batch *b, const struct bf_event_row *row);

/* One outcome that is not "in the inbox": suppressed, failed, expired, sent (transient). */
struct bf_outcome {
    struct bf_id event_id;
    struct bf_uid uid;
    uint8_t channel;
    uint16_t attempt;
    struct bf_id endpoint; /* the device that an attempt went to: a row of its own; 0: none */
    uint8_t status;        /* enum bf_status */
    uint64_t at_ms;
    uint64_t expires_ms;
    struct bf_bytes reason;
};
void bf_batch_put_outcome(struct bf_batch *b, const struct bf_outcome *outcome);
/* Borrowed during the call. */
int bf_store_get_event_row(struct bf_store *s, const struct bf_id *event_id,
                           int (*use)(void *arg, const struct bf_event_row *row), void *arg);
int bf_store_walk_outcomes(struct bf_store *s, const struct bf_id *event_id,
                           int (*each)(void *arg, const struct bf_outcome *outcome), void *arg);

/* ---- topics ---- */

enum bf_carriage { BF_CARRIAGE_INBOX = 0, BF_CARRIAGE_BROADCAST = 1 };
struct bf_topic_row {
    struct bf_bytes tenant, topic;
    enum bf_carriage carriage;
    uint64_t created_ms;
};
struct bf_subscription {
    struct bf_uid uid;
    struct bf_bytes topic;
    uint8_t channel_mask; /* 0 = all */
    bool deny;
    struct bf_bytes filter_json; /* as given; "" = none */
};
void bf_batch_put_topic(struct bf_batch *b, const struct bf_topic_row *row);
void bf_batch_put_subscription(struct bf_batch *b, const struct bf_subscription *sub);
void bf_batch_delete_subscription(struct bf_batch *b, struct bf_uid uid, struct bf_bytes topic);
int bf_store_get_topic(struct bf_store *s, struct bf_bytes tenant, struct bf_bytes topic,
                       struct bf_topic_row *ret); /* texts: those given */
int bf_store_walk_topics(struct bf_store *s, struct bf_bytes tenant, struct bf_bytes after,
                         int (*each)(void *arg, const struct bf_topic_row *row), void *arg);
/* Subscribers of a topic whose user id sorts after |after| ("" = first). */
typedef int (*bf_sub_fn)(void *arg, const struct bf_subscription *sub);
int bf_store_walk_subscribers(struct bf_store *s, struct bf_bytes tenant, struct bf_bytes topic,
                              struct bf_bytes after, bf_sub_fn each, void *arg);
int bf_store_walk_user_subscriptions(struct bf_store *s, struct bf_uid uid, bf_sub_fn each,
                                     void *arg);

/* ---- jobs: expansions with a checkpoint ---- */

struct bf_job_row {
    struct bf_id id;        /* event id */
    struct bf_bytes meta;   /* struct bf_event_meta, encoded */
    struct bf_bytes body;   /* the event's JSON */
    struct bf_bytes cursor; /* user id that the last finished chunk ended with */
    uint64_t targeted;
    bool is_push_only; /* in-app it is on the broadcast log: a broadcast's or broadcast topic's push
                        */
};
void bf_batch_put_job(struct bf_batch *b, const struct bf_job_row *job);
void bf_batch_delete_job(struct bf_batch *b, const struct bf_id *id);
int bf_store_walk_jobs(struct bf_store *s, int (*each)(void *arg, const struct bf_job_row *job),
                       void *arg);

/* ---- broadcast log (rows; the order is given by log/blog.h) ---- */

struct bf_bcast_row {
    uint64_t bseq;
    struct bf_id event_id;
    uint64_t created_ms, expires_ms;
    struct bf_bytes tenant, topic; /* topic "" = everyone */
    struct bf_bytes fragment;
};
void bf_batch_put_bcast(struct bf_batch *b, const struct bf_bcast_row *row);
bool bf_store_find_bcast(struct bf_store *s, const struct bf_id *event_id, uint64_t *ret_bseq);
uint64_t bf_store_bcast_head(struct bf_store *s); /* 0: none yet */
/* What is added to an offset of Kafka's broadcast topic to give its bseq: the head at which the
 * topic was last created again, 0 if that never happened. */
void bf_batch_put_bcast_base(struct bf_batch *b, int64_t base);
int bf_store_bcast_base(struct bf_store *s, int64_t *ret_base);
/* Rows with from < bseq <= to, in order; expired ones included until they are compacted. */
int bf_store_walk_bcast(struct bf_store *s, uint64_t from, uint64_t to,
                        int (*each)(void *arg, const struct bf_bcast_row *row), void *arg);

/* ---- dead letters ---- */

struct bf_dlq_row {
    uint64_t at_ms;
    struct bf_id event_id;
    uint8_t channel;        /* enum bf_channel, or BF_DLQ_INGEST */
    struct bf_bytes reason; /* one word, then ": " and a sentence */
    struct bf_bytes meta;   /* encoded meta, may be empty for what could not be parsed */
    struct bf_bytes body;
    struct bf_bytes headers; /* of a CloudEvent, as in struct bf_log_record; "" = none */
    uint64_t tag; /* bf_dlq_tag: tells legs of one event apart, of which several may end in one
                   * millisecond. 0: none; of push it is made when the letter is put */
};
#define BF_DLQ_INGEST 255u
/* Of a letter that is one of several of its event. */
uint64_t bf_dlq_tag(struct bf_bytes body);
void bf_batch_put_dlq(struct bf_batch *b, const struct bf_dlq_row *row);
/* Of a channel whose letters have no tag. */
void bf_batch_delete_dlq(struct bf_batch *b, uint8_t channel, uint64_t at_ms,
                         const struct bf_id *event_id);
/* By channel, at_ms, event_id and tag, as a walk gave them. */
void bf_batch_delete_letter(struct bf_batch *b, const struct bf_dlq_row *row);
int bf_store_walk_dlq(struct bf_store *s, uint8_t channel, uint64_t after_ms,
                      int (*each)(void *arg, const struct bf_dlq_row *row), void *arg);
uint64_t bf_store_dlq_depth(struct bf_store *s, uint8_t channel); /* kept in memory, O(1) */

/* ---- API keys, small values ---- */

struct bf_api_key_row {
    uint8_t hash[32]; /* SHA-256 of the whole key text (SEC-1) */
    char id[33];
    char tenant[BF_TENANT_BYTES_MAX + 1];
    char name[65];
    uint32_t scopes;       /* 1u << enum bf_scope (api/) */
    uint32_t rate_per_min; /* 0 = default of the configuration; UINT32_MAX = none */
    uint64_t created_ms;
    uint64_t expires_ms;  /* wall; 0 = never. Rows of before had no end: all below read as 0 */
    uint64_t revoked_ms;  /* wall; 0 = not revoked */
    char replaced_by[33]; /* id of the key that came from its rotation; "" = none */
};
/* When the key ends: UINT64_MAX = never. */
static inline uint64_t bf_api_key_end(const struct bf_api_key_row *row)
{
    uint64_t expires = row->expires_ms ? row->expires_ms : UINT64_MAX;
    uint64_t revoked = row->revoked_ms ? row->revoked_ms : UINT64_MAX;
    return expires < revoked ? expires : revoked;
}
/* Until when a request with the key is taken. A revoked one is dead whatever the clock says: set
 * back, it would be of before the revocation. */
static inline uint64_t bf_api_key_taken_until(const struct bf_api_key_row *row)
{
    return row->revoked_ms ? 0 : bf_api_key_end(row);
}
void bf_batch_put_api_key(struct bf_batch *b, const struct bf_api_key_row *row);
int bf_store_get_api_key(struct bf_store *s, const uint8_t hash[32], struct bf_api_key_row *ret);
int bf_store_walk_api_keys(struct bf_store *s,
                           int (*each)(void *arg, const struct bf_api_key_row *row), void *arg);
/* The key and its last use. */
void bf_batch_delete_api_key(struct bf_batch *b, const struct bf_api_key_row *row);
/* The time of a key's last use is a row of its own, because another thread writes it, and that must
 * not undo a revocation of the same moment. 0 for a key that was never used. */
void bf_batch_put_api_key_use(struct bf_batch *b, const char *id, uint64_t used_ms);
uint64_t bf_store_get_api_key_use(struct bf_store *s, const char *id);

/* Small named values of the control process: "cursor.<partition>", ... */
void bf_batch_put_value(struct bf_batch *b, struct bf_bytes name, struct bf_bytes value);
int bf_store_get_value(struct bf_store *s, struct bf_bytes name, uint8_t *out, size_t cap,
                       size_t *ret_len);

/* Idempotency answers (DESIGN 4.16) for the Kafka engine; the embedded log keeps its own beside the
 * event. */
struct bf_idem_row {
    struct bf_bytes key; /* tenant, API key id and key, joined by the API */
    uint8_t body_hash[16];
    uint64_t expires_ms;
    uint16_t status;
    struct bf_bytes answer;
};
void bf_batch_put_idem(struct bf_batch *b, const struct bf_idem_row *row);
int bf_store_get_idem(struct bf_store *s, struct bf_bytes key, uint64_t now_ms,
                      int (*use)(void *arg, const struct bf_idem_row *row), void *arg);
