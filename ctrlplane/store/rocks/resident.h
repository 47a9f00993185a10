/*
 * What this engine answers from memory because its process is the only one that writes: that a
 * message id is certainly not stored (seen.h), which users there are (known.h), and how many rows a
 * group of a table has. It follows the engine's own commits; after a start it is filled by walks
 * over the rows (warm.h). None of it holds for an engine that has other writers: that one has to
 * ask its rows.
 */
#pragma once

#include <pthread.h>

#include "store/changes.h"
#include "store/gather.h"
#include "store/rocks/known.h"
#include "store/rocks/seen.h"
#include "store/tables.h"

struct bf_resident {
    struct bf_seen seen;   /* message ids */
    struct bf_known known; /* users */
    /* Written by the thread whose commit was written, read by any; relaxed: plain numbers. Those of
     * a table that is counted blindly are below zero at times, until the walk after the start has
     * counted what was there before. */
    _Atomic uint64_t counts[BF_T_COUNT][BF_GROUPS];
    /* Held while rows counted each are looked for and written: shards may write the same one at
     * once. */
    pthread_mutex_t each_lock;
};

/* What one commit is about to change; grows, is never shrunk. */
struct bf_resident_delta {
    uint8_t table, group;
    int32_t by;
};
/* The last change of each row: indexes of changes. */
struct bf_resident_last {
    uint32_t *at;
    uint32_t count, cap;
};
struct bf_resident_commit {
    struct bf_resident_delta *deltas;
    uint32_t delta_count, delta_cap;
    struct bf_resident_last each; /* of rows that are counted each */
    struct bf_gather look;        /* which of them there are */
    struct bf_resident_last users;
};

/* 0 or -errno. */
int bf_resident_init(struct bf_resident *resident);
void bf_resident_fini(struct bf_resident *resident);
/* Counts what is counted each. At the start, before anybody writes. BF_ERR_*. */
int bf_resident_load(struct bf_resident *resident, struct bf_engine *engine);

/* False: there is certainly no such row. */
static inline bool bf_resident_may_have(struct bf_resident *resident, const struct bf_key *key)
{
    return key->at[0] != BF_T_ID || bf_seen_may_have(&resident->seen, (const void *)(key->at + 1));
}
/* Whether there is the row, as far as memory knows. */
static inline enum bf_known_answer bf_resident_has(struct bf_resident *resident,
                                                   const struct bf_key *key)
{
    if (key->at[0] == BF_T_USER)
        return bf_known_has(&resident->known, (struct bf_bytes){(const char *)key->at, key->len});
    return bf_resident_may_have(resident, key) ? BF_KNOWN_PERHAPS : BF_KNOWN_NO;
}
static inline __attribute__((always_inline)) void bf_resident_prefetch(struct bf_resident *resident,
                                                                       const struct bf_key *key)
{
    if (key->at[0] == BF_T_ID)
        bf_seen_prefetch(&resident->seen, (const void *)(key->at + 1));
}
uint64_t bf_resident_count(const struct bf_resident *resident, enum bf_table table, uint8_t group);
/* One row that a walk after the start has met. */
void bf_resident_count_row(struct bf_resident *resident, struct bf_bytes key);

/* Whether changes of the table are to be noted. */
static inline bool bf_resident_watches(uint8_t table)
{
    return table == BF_T_ID || table == BF_T_USER || bf_tables[table].counting != BF_COUNTED_NOT;
}
/* Before the write: change |i| of a run of changes in key order, [run, end). */
void bf_resident_note(struct bf_resident *resident, struct bf_resident_commit *commit,
                      const struct bf_changes *changes, uint32_t run, uint32_t end, uint32_t i);
/* Then, still before it: the users that come, and with rows that are counted each what is stored of
 * them now. Those are then locked until the apply. */
void bf_resident_begin(struct bf_resident *resident, struct bf_resident_commit *commit,
                       struct bf_engine *engine, const struct bf_changes *changes);
/* After the write; |is_written| false: it failed. */
void bf_resident_end(struct bf_resident *resident, const struct bf_resident_commit *commit,
                     const struct bf_changes *changes, bool is_written);
void bf_resident_commit_clear(struct bf_resident_commit *commit);
void bf_resident_commit_fini(struct bf_resident_commit *commit);
