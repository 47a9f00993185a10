/*
 * The core as the rest of the control process calls it. Everything that touches a user's state runs
 * on the thread of the user's shard; these calls post work there and wait for it, up to a limit.
 * Any thread but a shard's own. All return 0 or a code of base/err.h; BF_ERR_AWAY: the shard did
 * not answer in time (1 s), the caller answers 503; BF_ERR_UNKNOWN_USER; BF_ERR_NOT_FOUND;
 * BF_ERR_STORE.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/id.h"
#include "ingest/event.h"
#include "prefs/prefs.h"
#include "store/store.h"
#include "terms/presence.h"

struct bf_core;

/* How long an API call waits for a shard, or for all workers' confirmation of a mask (DESIGN 4.13).
 */
#define BF_CORE_WAIT_MS 1000u

/* Creates or replaces the profile (checked JSON object). */
int bf_core_put_user(struct bf_core *core, struct bf_uid uid, struct bf_bytes profile_json,
                     bool *ret_created);
/* Stops every delivery to the user, then erases everything (DESIGN 4.13); the user's sockets are
 * closed with 4409. Returns 0 only after the store write, the shard's barrier and the confirmation
 * of every worker. */
int bf_core_erase_user(struct bf_core *core, struct bf_uid uid, struct bf_bytes by);
/* Erases what work that was under way has written since; does nothing if the user exists again.
 * Eraser thread. */
int bf_core_erase_rest(struct bf_core *core, struct bf_uid uid, uint64_t erased_ms);
bool bf_core_has_user(struct bf_core *core, struct bf_uid uid);
/* A valid token creates its user, at the first request as at the first socket (ING-11). */
int bf_core_admit_user(struct bf_core *core, struct bf_uid uid);

/* Takes |prefs| over, whatever it returns: a call that timed out may still run. Opting out waits as
 * erase does. Opting in again first waits until nothing from before is still on its way to a
 * worker. */
int bf_core_put_prefs(struct bf_core *core, struct bf_uid uid, struct bf_prefs *prefs,
                      struct bf_bytes stored_json);

/* Registers or refreshes a device of the user (store/devices.h); |row| is copied. *ret_created_ms:
 * of the first time. BF_ERR_FULL: BF_DEVICES_USER_MAX live ones; the oldest dead one makes room. */
struct bf_device_row;
int bf_core_put_device(struct bf_core *core, struct bf_uid uid, const struct bf_device_row *row,
                       bool *ret_created, uint64_t *ret_created_ms);
int bf_core_delete_device(struct bf_core *core, struct bf_uid uid, const struct bf_id *id);

enum bf_mark {
    BF_MARK_READ = 0,
    BF_MARK_UNREAD = 1,
    BF_MARK_SEEN = 2,
    BF_MARK_ARCHIVED = 3,
    BF_MARK_UNARCHIVED = 4,
    BF_MARK_DELETED = 5,
};
/* |id|: message id, or the event id of a notification of which the user has a message. The user's
 * connections are told of a change by `state`. A call that changes nothing returns 0, and nobody is
 * told. Durable on return. BF_ERR_NOT_FOUND: unknown, deleted or expired. */
int bf_core_mark(struct bf_core *core, struct bf_uid uid, const struct bf_id *id, enum bf_mark mark,
                 uint32_t *ret_unread);
int bf_core_read_all(struct bf_core *core, struct bf_uid uid, uint32_t *ret_changed,
                     uint32_t *ret_unread);
int bf_core_state(struct bf_core *core, struct bf_uid uid, struct bf_user_state *ret);
/* Finds the inbox place of a message id or event id. */
int bf_core_locate(struct bf_core *core, struct bf_uid uid, const struct bf_id *id,
                   enum bf_lane *ret_lane, uint64_t *ret_seq);

struct bf_connection_row {
    uint32_t worker;
    uint64_t conn;
    struct bf_uid uid;
    struct bf_bytes device; /* "" after a restart of the control process: only its hash is known */
    uint64_t device_hash;
    uint64_t connected_ms;
    uint64_t sent[BF_LANE_COUNT], acked[BF_LANE_COUNT];
};
/* uid.user.at NULL: everyone, at most |limit|. */
int bf_core_walk_connections(struct bf_core *core, struct bf_uid uid, uint32_t limit,
                             void (*each)(void *arg, const struct bf_connection_row *row),
                             void *arg, enum bf_presence *ret_presence);
/* Tells |rate| connections a second to go away (4000); 0 ends it. */
int bf_core_drain(struct bf_core *core, uint32_t rate, uint32_t reconnect_after_ms);

/* Appends a dead letter's event to the log again and removes the letter once that is durable.
 * BF_ERR_NOT_FOUND; a CloudEvent that still cannot be converted: BF_ERR_MALFORMED, _TOO_LARGE,
 * _UTF8, and the letter stays. */
int bf_core_redrive(struct bf_core *core, uint8_t channel, uint64_t at_ms,
                    const struct bf_id *event_id);

/* The same of a channel that goes out by a provider, one letter (an endpoint each): its message
 * goes back into the queue, due now, under another id. BF_ERR_NOT_FOUND; BF_ERR_UNKNOWN_USER:
 * erased or never there (of one erased since, the letter goes too); BF_ERR_EXPIRED: it has expired;
 * BF_ERR_CORRUPT; BF_ERR_FULL. */
int bf_core_redrive_leg(struct bf_core *core, uint8_t channel, uint64_t at_ms,
                        const struct bf_id *event_id, uint64_t tag);

/* Live reload: limits, JWT keys, topics. The new conf must outlive the core (main keeps both). */
struct bf_conf;
int bf_core_reload(struct bf_core *core, const struct bf_conf *conf);

struct bf_core_health {
    bool dataplane_attached; /* a living region, census done */
    bool presence_known;
    uint64_t dataplane_generation;
    uint32_t workers;
    uint32_t attaches;
    uint32_t users;
    uint32_t connections;
    uint64_t inflight;
    uint64_t oldest_open_ms;
    uint32_t jobs;
    uint64_t blocks_total, blocks_free;
};
void bf_core_health(struct bf_core *core, struct bf_core_health *ret);
/* The region for /metrics (counters only), or NULL while detached. */
const struct bf_region *bf_core_region(struct bf_core *core);
