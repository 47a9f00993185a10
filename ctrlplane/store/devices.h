/*
 * Device registry (PSH-5): where a user's pushes go. A row a device below its user, and an index
 * from a keyed hash of the token to the device that holds it: a token belongs to one device of one
 * user at a time. Tokens arrive sealed (crypto/vault.h); the store never sees one.
 */
#pragma once

#include "store/store.h"

/* Devices of one user. A person has a handful; more come from test runs and phones that were sold.
 * More: 409. */
#define BF_DEVICES_USER_MAX        32u
#define BF_DEVICE_APP_BYTES_MAX    64u
#define BF_DEVICE_LOCALE_BYTES_MAX 35u   /* RFC 5646 section 4.4.1 */
#define BF_DEVICE_SEALED_BYTES_MAX 2048u /* the longest token or endpoint, its keys, the seal */
#define BF_DEVICE_REASON_BYTES_MAX 96u

enum bf_device_state { BF_DEVICE_LIVE = 0, BF_DEVICE_DEAD = 1 };

struct bf_device_row {
    struct bf_uid uid; /* with id, the key */
    struct bf_id id;
    uint8_t kind;     /* enum bf_push_kind */
    uint8_t platform; /* enum bf_platform */
    uint8_t state;
    uint64_t created_ms;
    uint64_t registered_ms; /* when the app last said that it has this token: APNs' 410 rule */
    uint64_t seen_ms;
    uint64_t dead_ms;
    uint8_t token_hash[16];
    struct bf_bytes app, locale, name;
    struct bf_bytes sealed; /* token, and keys of Web Push */
    struct bf_bytes reason; /* why it is dead */
};

/* A row without its key as bytes, for a call to a shard. The decoded row is borrowed from it. */
#define BF_DEVICE_ROW_BYTES_MAX 2560u
size_t bf_device_encode(const struct bf_device_row *row, uint8_t out[BF_DEVICE_ROW_BYTES_MAX]);
bool bf_device_decode(struct bf_bytes bytes, struct bf_device_row *ret);

typedef int (*bf_device_fn)(void *arg, const struct bf_device_row *row);

/* The row and its index. An earlier row of the same device loses its index. Another person's device
 * with this token is deleted: the phone has changed hands. Reads the store: rows of this batch are
 * not seen. */
void bf_batch_put_device(struct bf_batch *b, const struct bf_device_row *row);
/* BF_ERR_NOT_FOUND. The token's index goes with the row only as long as it names this row. */
int bf_batch_delete_device(struct bf_batch *b, struct bf_uid uid, const struct bf_id *id);
/* Marks the row as dead, unless it is dead already or was registered after |token_hash| changed.
 * BF_ERR_NOT_FOUND: the row is gone or has another token by now. */
int bf_batch_mark_device_dead(struct bf_batch *b, struct bf_uid uid, const struct bf_id *id,
                              const uint8_t token_hash[16], uint64_t dead_ms,
                              struct bf_bytes reason);

/* Borrowed during the call; a non-zero result of |use| is returned. */
int bf_store_get_device(struct bf_store *s, struct bf_uid uid, const struct bf_id *id,
                        bf_device_fn use, void *arg);
/* The holder of a token. */
int bf_store_find_device(struct bf_store *s, const uint8_t token_hash[16], bf_device_fn use,
                         void *arg);
int bf_store_walk_devices(struct bf_store *s, struct bf_uid uid, bf_device_fn each, void *arg);
/* Every device of all users, as the store was when the walk began. */
int bf_store_walk_all_devices(struct bf_store *s, bf_device_fn each, void *arg);
/* The people of a tenant who have devices, dead ones too, each once, from the first after |after|
 * ("": from the beginning), in the order of the store. Borrowed during the call; a non-zero result
 * of |each| ends the walk and is returned. */
int bf_store_walk_device_users(struct bf_store *s, struct bf_bytes tenant, struct bf_bytes after,
                               int (*each)(void *arg, struct bf_bytes user), void *arg);
