/*
 * Inside of the RocksDB engine: what its files share. It is the engine of a node alone: its process
 * is the only one that writes the database.
 */
#pragma once

#include "belfry/base/fault.h"
#include "store/engine.h"
#include "store/rocks/rocks.h"
#include "store/rocks/resident.h"
#include "store/rocks/warm.h"
#include "store/store.h"

/* Column families by access pattern, not by table: each costs memtables and flushes of its own. */
enum bf_family {
    BF_FAMILY_MAIN =
        0, /* small tables, rarely written: users, prefs, topics, keys, jobs, values, dlq */
    BF_FAMILY_STATE = 1, /* one small row a user, rewritten with every message */
    BF_FAMILY_INBOX = 2, /* messages and acks */
    BF_FAMILY_ID = 3,    /* message id -> place; looked up for nearly every event, mostly in vain */
    BF_FAMILY_STATUS = 4,   /* events, outcomes */
    BF_FAMILY_EXPIRING = 5, /* broadcasts, idempotency, the push queue */
    BF_FAMILY_COUNT
};

struct bf_rocks_engine {
    struct bf_engine engine; /* first */
    struct bf_rocks rocks;
    char dir[512];
    /* epoch.c */
    uint64_t epoch_id;
    uint32_t epoch_count;
    uint64_t start; /* random, of this start: rows and stamp name it (lineage.h) */
    char witness_dir[512];
    int witness_fd;              /* -1: none */
    uint64_t witnessed;          /* sequence number that it says */
    struct bf_fault write_fault; /* BELFRY_FAULT=store_write:N */
    struct bf_resident resident;
    struct bf_warm warm; /* fills |resident| after the start */
};

static inline struct bf_rocks_engine *bf_rocks_of(struct bf_engine *engine)
{
    return (struct bf_rocks_engine *)engine;
}

/* Opens or creates the database. */
int bf_rocks_engine_open(const struct bf_store_options *options, struct bf_engine **ret, char *err,
                         size_t err_len);

enum bf_family bf_family_of(uint8_t table);

/* read.c */
int bf_rocks_engine_get(struct bf_engine *engine, const struct bf_key *key, struct bf_row *ret);
bool bf_rocks_engine_has(struct bf_engine *engine, const struct bf_key *key);
void bf_rocks_engine_expect(struct bf_engine *engine, const struct bf_key *key);
int bf_rocks_gather(struct bf_engine *engine, struct bf_gather *g);
void bf_rocks_scan_open(struct bf_scan *scan);
bool bf_rocks_scan_next(struct bf_scan *scan);
int bf_rocks_scan_close(struct bf_scan *scan);

/* commit.c */
struct bf_committer *bf_rocks_committer_create(struct bf_engine *engine);
void bf_rocks_committer_destroy(struct bf_committer *committer);
int bf_rocks_commit(struct bf_committer *committer, struct bf_changes *changes, bool sync);

/* epoch.c: which epoch begins or goes on with this start. */
int bf_rocks_load_epoch(struct bf_rocks_engine *e, char *err, size_t err_len);
int bf_rocks_mark_clean(struct bf_rocks_engine *e);
void bf_rocks_witness(struct bf_engine *engine);
