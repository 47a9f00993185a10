/*
 * What this engine answers from memory because its process is the only one that writes: that a
 * message id is certainly not stored (seen.h), and how many rows a group of a table has. It follows
 * the engine's own commits; after a start it is filled by walks over the rows (warm.h). None of it
 * holds for an engine that has other writers: that one has to ask its rows.
 */
#pragma once

#include <pthread.h>

#include "store/changes.h"
#include "store/gather.h"
#include "store/rocks/seen.h"
#include "store/tables.h"

struct bf_resident {
    struct bf_seen seen; /* message ids */
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
struct bf_resident_commit {
    struct bf_resident_delta *deltas;
    uint32_t delta_count, delta_cap;
    struct bf_gather look; /* which of them there are */
    uint32_t *each; /* the last change of each row that is counted each: indexes of changes */
    uint32_t each_count, each_cap;
};

void bf_resident_init(struct bf_resident *resident);
void bf_resident_fini(struct bf_resident *resident);
/* Counts what is counted each. At the start, before anybody writes. BF_ERR_*. */
int bf_resident_load(struct bf_resident *resident, struct bf_engine *engine);

/* False: there is certainly no such row. */
static inline bool bf_resident_may_have(struct bf_resident *resident, const struct bf_key *key)
{
    return key->at[0] != BF_T_ID || bf_seen_may_have(&resident->seen, (const void *)(key->at + 1));
}
static inline void bf_resident_prefetch(struct bf_resident *resident, const struct bf_key *key)
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
    return table == BF_T_ID || bf_tables[table].counting != BF_COUNTED_NOT;
}
/* Before the write: change |i| of a run of changes in key order, [run, end). */
void bf_resident_note(struct bf_resident *resident, struct bf_resident_commit *commit,
                      const struct bf_changes *changes, uint32_t run, uint32_t end, uint32_t i);
/* The rows that are counted each and are noted, against what is stored now: under each_lock, which
 * is held until they are written. */
void bf_resident_look(struct bf_resident_commit *commit, struct bf_engine *engine,
                      const struct bf_changes *changes);
/* After the write. */
void bf_resident_apply(struct bf_resident *resident, const struct bf_resident_commit *commit);
void bf_resident_commit_clear(struct bf_resident_commit *commit);
void bf_resident_commit_fini(struct bf_resident_commit *commit);
