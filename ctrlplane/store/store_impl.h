/*
 * Private to store/: what the files of the tables share. A batch and its rows, reads, and the rules
 * for values: format byte first, expiry next where it has one.
 */
#pragma once

#include "store/engine.h"
#include "store/store.h"
#include "store/value.h"

struct bf_store {
    struct bf_engine *engine;
    /* The highest bseq that was written. The broadcast log has one writer a node whatever the
     * engine is, so this is known here. Written by that thread; relaxed: a plain number. */
    _Atomic uint64_t bcast_head;
    uint32_t partitions; /* a power of two; set when opened (legs_migrate.c) */
};

struct bf_batch {
    struct bf_store *store;
    struct bf_committer *committer;
    struct bf_changes changes;
    uint8_t *scratch; /* values are put together here; grows, is never shrunk */
    size_t scratch_cap;
    uint64_t bcast_head; /* highest bseq put; 0 = none */
    /* While it is set, the keys of deleted rows are noted here for an erasure, each with its length
     * in front. */
    bool is_noting;
    uint8_t *noted;
    size_t noted_len, noted_cap;
};

/* A writer over the batch's scratch with at least |bytes| of room, format byte written. */
struct bf_writer bf_batch_value(struct bf_batch *b, size_t bytes);
/* The same, with the expiry after the format byte. */
struct bf_writer bf_batch_expiring_value(struct bf_batch *b, uint64_t expires_ms, size_t bytes);
/* Puts the row; the writer must not have failed. */
void bf_batch_put(struct bf_batch *b, const struct bf_key *key, const struct bf_writer *value);
void bf_batch_delete(struct bf_batch *b, const void *key, size_t key_len);
/* Deletes all keys that begin with |prefix|. Until the next compaction this makes every read of the
 * family a little slower, so only erasure uses it. */
void bf_batch_delete_prefix(struct bf_batch *b, const struct bf_key *prefix);

int bf_store_get(const struct bf_store *s, const struct bf_key *key, struct bf_row *ret);
/* bf_engine_scan of the store's engine; then bf_scan_next and bf_scan_close. */
static inline void bf_scan_open(struct bf_scan *scan, const struct bf_store *s,
                                const struct bf_key *prefix, const struct bf_key *from,
                                unsigned flags)
{
    bf_engine_scan(scan, s->engine, prefix, from, flags);
}

/* status.c: an event with one recipient, kept in the id row of its message, after the place. */
size_t bf_sole_event_bytes(const struct bf_event_row *row);
void bf_put_sole_event(struct bf_writer *w, const struct bf_event_row *row, struct bf_bytes user);

/* erase.c: when the user of an erased row was erased. */
uint64_t bf_erased_ms(struct bf_bytes value);
/* bcast.c: the head, at the start. */
int bf_store_load_bcast_head(struct bf_store *s);
/* legs_migrate.c: how many partitions the store has; rows of a former version are brought to them
 * first. At the start, before anything else is written. */
int bf_store_load_partitions(struct bf_store *s, char *err, size_t err_len);
/* devices.c: all of the user's devices and their tokens. */
int bf_batch_erase_devices(struct bf_batch *b, struct bf_uid uid);
