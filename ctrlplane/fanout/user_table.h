/*
 * The users of one shard, all in memory: compact records in a hash table by the key that shared
 * memory uses, so a receipt, a census answer and an event find a user in the same way. A new region
 * draws a new secret: bf_user_table_rekey recomputes all keys. Shard thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/shm/user_key.h"
#include "prefs/prefs.h"
#include "store/store.h"

struct bf_conn;

/* Whether the user has push devices, so that the registry is not read for those who have none. */
enum bf_user_devices {
    BF_USER_DEVICES_UNKNOWN = 0,
    BF_USER_DEVICES_NONE = 1,
    BF_USER_DEVICES_SOME = 2,
};

struct bf_user {
    struct bf_user_key key;
    struct bf_user_state state;
    struct bf_prefs *prefs; /* NULL: defaults */
    struct bf_conn *conns;  /* open connections, newest first */
    uint16_t user_len;
    uint8_t tenant_len;
    uint8_t devices;      /* enum bf_user_devices */
    bool dirty;           /* a new state row is due; on the shard's dirty list */
    bool is_behind_store; /* changed since the row was written, within its step (BF_SEQ_STEP) */
    bool opted_out;
    char id[]; /* tenant bytes, then user bytes */
};

struct bf_user_table {
    uint8_t secret[BF_USER_SECRET_BYTES];
    struct bf_user **slots; /* NULL: free */
    uint32_t mask;
    uint32_t count;
};

int bf_user_table_init(struct bf_user_table *t, uint32_t capacity);
void bf_user_table_fini(struct bf_user_table *t);
int bf_user_table_rekey(struct bf_user_table *t, const uint8_t secret[BF_USER_SECRET_BYTES]);

/* By full id; NULL when absent. */
struct bf_user *bf_user_find(struct bf_user_table *t, struct bf_uid uid);
struct bf_user_key bf_user_key_in(const struct bf_user_table *t, struct bf_uid uid);
/* As bf_user_find, with a key that was computed before; and two functions that prefetch the record,
 * to be called earlier. */
struct bf_user *bf_user_find_with(struct bf_user_table *t, struct bf_uid uid,
                                  struct bf_user_key key);
void bf_user_prefetch_slot(const struct bf_user_table *t, struct bf_user_key key);
void bf_user_prefetch_record(const struct bf_user_table *t, struct bf_user_key key);
struct bf_user *bf_user_find_key(struct bf_user_table *t, struct bf_user_key key);
/* Adds a user that is not there. NULL on no memory, or if another id has the same key. */
struct bf_user *bf_user_add(struct bf_user_table *t, struct bf_uid uid);
/* Frees the record; its connections must be gone. */
void bf_user_remove(struct bf_user_table *t, struct bf_user *user);

static inline struct bf_uid bf_user_uid(const struct bf_user *user)
{
    return (struct bf_uid){.tenant = {.at = user->id, .len = user->tenant_len},
                           .user = {.at = user->id + user->tenant_len, .len = user->user_len}};
}

/* Walks all users, of whom none may be added or removed meanwhile; stops when |each| returns false.
 */
void bf_user_table_walk(struct bf_user_table *t, bool (*each)(void *arg, struct bf_user *user),
                        void *arg);
