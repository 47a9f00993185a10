/*
 * The interface between the tables of the store and the engine that keeps their rows. A row is a
 * key and a value, both canonical bytes that begin with the table's number or the format byte;
 * tables.h says of what columns they are made. Code above it does not know which engine is used; an
 * engine does not know what a row means.
 *
 * Order: rows of a table lie in the order of their key's bytes, which is the order of its columns:
 * numbers and raw bytes by value, texts by length and then by bytes. Where an optional column is
 * absent in one of two rows, the order of the two is the engine's own.
 *
 * Some things can be known only if nobody else writes the data: how many rows a group has, or that
 * a key is certainly not there. They are left to the engine; nothing above it counts or filters.
 *
 * Results: 0; BF_ERR_NOT_FOUND; BF_ERR_CORRUPT (what could not be read was counted and named in the
 * log); BF_ERR_STORE (nothing is written any more).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/changes.h"
#include "store/keys.h"
#include "store/scrub.h"
#include "store/tables.h"

struct bf_engine;
struct bf_gather;

/* A value borrowed from the engine until bf_row_put. */
struct bf_row {
    struct bf_bytes value;
    void *held;
    void (*release)(void *held);
};

static inline void bf_row_put(struct bf_row *row)
{
    if (row->release)
        row->release(row->held);
    *row = (struct bf_row){0};
}

enum bf_scan_flags {
    BF_SCAN_BACKWARDS = 1u << 0,
    BF_SCAN_BULK = 1u << 1,  /* a whole table: read ahead, leave the cache alone */
    BF_SCAN_AFTER = 1u << 2, /* forwards only: what begins with |from| is left out */
};

/* What one thread needs to commit. Each engine's struct begins with this one. */
struct bf_committer {
    struct bf_engine *engine;
};

/* A walk over rows of one table in key order, or backwards. */
struct bf_scan {
    /* Set by bf_engine_scan. A prefix ends with a column before an optional one, or within a raw
     * one. |from| is a row's key, or forwards also the beginning of some; it begins with the
     * prefix.
     */
    struct bf_engine *engine;
    struct bf_key prefix;
    struct bf_key from; /* length 0: from the first, or the last if backwards */
    unsigned flags;
    /* Of the row that the scan stands at; borrowed until the next step. */
    struct bf_bytes key, value;
    /* The engine's. */
    void *at, *more;
    struct bf_key end;
    bool has_begun;
};

struct bf_engine_ops {
    /* |is_clean|: everything that was committed is written out, and the next start knows that
     * nothing is missing. Otherwise it is as if the process had been killed. No thread uses the
     * engine. */
    void (*close)(struct bf_engine *engine, bool is_clean);
    /* To be called once by each thread that reads or writes much. */
    void (*enter_thread)(struct bf_engine *engine);

    /* ---- reads: any thread ---- */
    int (*get)(struct bf_engine *engine, const struct bf_key *key, struct bf_row *ret);
    /* Whether there is such a row. False too where that cannot be read. */
    bool (*has)(struct bf_engine *engine, const struct bf_key *key);
    /* A hint that the key will be read in a moment. May do nothing. */
    void (*expect)(struct bf_engine *engine, const struct bf_key *key);
    /* All that is wanted at once (gather.h). */
    int (*gather)(struct bf_engine *engine, struct bf_gather *g);
    /* Opening cannot fail; errors are returned by the close. A scan sees the rows as they were when
     * it was opened, belongs to one thread, and is closed in any case. */
    void (*scan_open)(struct bf_scan *scan);
    bool (*scan_next)(struct bf_scan *scan);
    int (*scan_close)(struct bf_scan *scan);
    /* Rows of a counted table by group. May be too low for a while after an open of a table that is
     * counted blindly, never below zero. */
    uint64_t (*count)(struct bf_engine *engine, enum bf_table table, uint8_t group);

    /* ---- writes ---- */
    /* NULL: no memory. */
    struct bf_committer *(*committer_create)(struct bf_engine *engine);
    void (*committer_destroy)(struct bf_committer *committer);
    /* Writes all changes or none, in the order of the list: the last change of a key counts, and
     * the deletion of a prefix also deletes what was put before it. May sort the list. |sync|:
     * durable when it returns; else it survives a kill of the process, but perhaps not a failure of
     * the machine. */
    int (*commit)(struct bf_committer *committer, struct bf_changes *changes, bool sync);
    /* All that was committed is durable. Any thread. */
    int (*sync)(struct bf_engine *engine);

    /* ---- the whole of it ---- */
    /* Notes in the witness file how far the data are written (rocks/lineage.h). Every second or so;
     * one thread. */
    void (*witness)(struct bf_engine *engine);
    /* Copies the data as they are now into a new directory. Any thread. */
    int (*checkpoint)(struct bf_engine *engine, const char *dir, char *err, size_t err_len);
    /* Free bytes and size of what the data lies on. 0 or -errno. */
    int (*disk)(struct bf_engine *engine, uint64_t *ret_free, uint64_t *ret_size);
    /* Removes the bytes of deleted rows, whose keys are in |spans|, from the disk. Blocking; one
     * thread. -ECANCELED: the pace ended it. */
    int (*scrub)(struct bf_engine *engine, struct bf_spans *spans, const struct bf_pace *pace);
    /* Ends a running scrub, and lets no other begin; its pace must already refuse to go on. Any
     * thread. */
    void (*stop_scrub)(struct bf_engine *engine);
};

/* The head of every engine. */
struct bf_engine {
    const struct bf_engine_ops *ops;
    char epoch[40]; /* as long as it is the same, so is what a sequence number means */
    /* Set by the engine when a commit or sync failed: all later ones fail too. Relaxed: other
     * callers may see it a little later; the caller of the failed write got the error. */
    _Atomic bool is_failed;
};

/* All rows whose key begins with |prefix|, from |from| on (NULL: from the first). */
void bf_engine_scan(struct bf_scan *scan, struct bf_engine *engine, const struct bf_key *prefix,
                    const struct bf_key *from, unsigned flags);
/* Next row into key and value; false at the end. */
static inline bool bf_scan_next(struct bf_scan *scan)
{
    return scan->engine->ops->scan_next(scan);
}
/* 0, or BF_ERR_CORRUPT if the scan ended because the engine could not read on. */
static inline int bf_scan_close(struct bf_scan *scan)
{
    return scan->engine->ops->scan_close(scan);
}

/* A record that does not decode: counted, and named in the log the first time (DESIGN 4.15).
 * Returns BF_ERR_CORRUPT. Any thread. */
int bf_store_corrupt(const char *what, const void *key, size_t key_len);

struct bf_store;
/* A store on an opened engine, which it owns from now on, also when it fails. */
int bf_store_open_on(struct bf_engine *engine, struct bf_store **ret, char *err, size_t err_len);
