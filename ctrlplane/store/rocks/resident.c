/* See resident.h. */
#include "store/rocks/resident.h"

#include <stdlib.h>

#include "store/engine.h"

/* Groups and rows of one commit: it touches few of them. */
#define LIST_START 16u

int bf_resident_init(struct bf_resident *resident)
{
    bf_seen_create(&resident->seen);
    pthread_mutex_init(&resident->each_lock, NULL);
    return bf_known_init(&resident->known);
}

void bf_resident_fini(struct bf_resident *resident)
{
    bf_seen_destroy(&resident->seen);
    bf_known_fini(&resident->known);
    pthread_mutex_destroy(&resident->each_lock);
}

static int load_table(struct bf_resident *resident, struct bf_engine *engine, enum bf_table table)
{
    struct bf_key prefix;
    struct bf_scan scan;
    bf_key_begin(&prefix, table);
    bf_engine_scan(&scan, engine, &prefix, NULL, BF_SCAN_BULK);
    while (bf_scan_next(&scan))
        bf_resident_count_row(resident, scan.key);
    return bf_scan_close(&scan);
}

int bf_resident_load(struct bf_resident *resident, struct bf_engine *engine)
{
    int rc = 0;
    for (unsigned table = 1; rc == 0 && table < BF_T_COUNT; table++)
        if (bf_tables[table].counting == BF_COUNTED_EACH)
            rc = load_table(resident, engine, (enum bf_table)table);
    return rc;
}

void bf_resident_count_row(struct bf_resident *resident, struct bf_bytes key)
{
    int group = bf_table_group(key);
    if (group >= 0)
        atomic_fetch_add_explicit(&resident->counts[(uint8_t)key.at[0]][group], 1,
                                  memory_order_relaxed);
}

uint64_t bf_resident_count(const struct bf_resident *resident, enum bf_table table, uint8_t group)
{
    int64_t count =
        (int64_t)atomic_load_explicit(&resident->counts[table][group], memory_order_relaxed);
    return count > 0 ? (uint64_t)count : 0;
}

/* ---- a commit ---- */

static void *grown(void *list, uint32_t count, uint32_t *cap, size_t bytes)
{
    if (count < *cap)
        return list;
    *cap = *cap ? *cap * 2 : LIST_START;
    list = realloc(list, *cap * bytes);
    BF_BUG_ON(list == NULL); /* a store without memory for a batch cannot go on */
    return list;
}

static void add_delta(struct bf_resident_commit *commit, struct bf_bytes key, int32_t by)
{
    uint8_t table = (uint8_t)key.at[0];
    int group = bf_table_group(key);
    if (by == 0 || group < 0)
        return;
    for (uint32_t i = 0; i < commit->delta_count; i++) {
        struct bf_resident_delta *delta = &commit->deltas[i];
        if (delta->table == table && delta->group == group) {
            delta->by += by;
            return;
        }
    }
    commit->deltas =
        grown(commit->deltas, commit->delta_count, &commit->delta_cap, sizeof(*commit->deltas));
    commit->deltas[commit->delta_count++] = (struct bf_resident_delta){table, (uint8_t)group, by};
}

static bool is_same_key(const struct bf_changes *changes, uint32_t a, uint32_t b)
{
    return bf_bytes_is_equal(bf_change_key(changes, &changes->list[a]),
                             bf_change_key(changes, &changes->list[b]));
}

/* A row that comes twice in a commit is one row: its last change counts. In a run they lie side by
 * side; an earlier run may have had it too. */
static void note_last(struct bf_resident_last *last, const struct bf_changes *changes, uint32_t run,
                      uint32_t end, uint32_t i)
{
    if (i + 1 < end && is_same_key(changes, i, i + 1))
        return;
    for (uint32_t k = 0; run > 0 && k < last->count; k++) {
        if (last->at[k] < run && is_same_key(changes, last->at[k], i)) {
            last->at[k] = i;
            return;
        }
    }
    last->at = grown(last->at, last->count, &last->cap, sizeof(*last->at));
    last->at[last->count++] = i;
}

void bf_resident_note(struct bf_resident *resident, struct bf_resident_commit *commit,
                      const struct bf_changes *changes, uint32_t run, uint32_t end, uint32_t i)
{
    const struct bf_change *change = &changes->list[i];
    struct bf_bytes key = bf_change_key(changes, change);
    uint8_t table = (uint8_t)key.at[0];
    bool is_put = change->kind == BF_CHANGE_PUT;
    if (table == BF_T_ID && is_put)
        bf_seen_add(&resident->seen, (const void *)(key.at + 1));
    else if (table == BF_T_USER)
        note_last(&commit->users, changes, run, end, i);
    else if (bf_tables[table].counting == BF_COUNTED_BLIND)
        add_delta(commit, key, is_put ? 1 : -1);
    else if (bf_tables[table].counting == BF_COUNTED_EACH)
        note_last(&commit->each, changes, run, end, i);
}

/* Users are added before their rows are written and removed after them, so a user who has a row is
 * never reported as unknown. */
static void update_users(struct bf_resident *resident, const struct bf_resident_commit *commit,
                         const struct bf_changes *changes, enum bf_change_kind kind)
{
    for (uint32_t i = 0; i < commit->users.count; i++) {
        const struct bf_change *change = &changes->list[commit->users.at[i]];
        if (change->kind != kind)
            continue;
        if (kind == BF_CHANGE_PUT)
            bf_known_add(&resident->known, bf_change_key(changes, change));
        else
            bf_known_remove(&resident->known, bf_change_key(changes, change));
    }
}

static void count_each(struct bf_resident_commit *commit, struct bf_engine *engine,
                       const struct bf_changes *changes)
{
    struct bf_gather *g = &commit->look;
    g->engine = engine;
    bf_gather_clear(g);
    for (uint32_t i = 0; i < commit->each.count; i++) {
        struct bf_bytes bytes = bf_change_key(changes, &changes->list[commit->each.at[i]]);
        struct bf_key key = {.len = 0};
        bf_key_raw(&key, bytes.at, bytes.len);
        bf_want_has(g, &key);
    }
    (void)bf_gather_read(g); /* a row that cannot be read counts as none */
    for (uint32_t i = 0; i < commit->each.count; i++) {
        const struct bf_change *change = &changes->list[commit->each.at[i]];
        add_delta(commit, bf_change_key(changes, change),
                  (change->kind == BF_CHANGE_PUT) - (bf_gather_got(g, i)->rc == 0));
    }
}

void bf_resident_begin(struct bf_resident *resident, struct bf_resident_commit *commit,
                       struct bf_engine *engine, const struct bf_changes *changes)
{
    update_users(resident, commit, changes, BF_CHANGE_PUT);
    if (commit->each.count == 0) /* dead letters, which are rare */
        return;
    pthread_mutex_lock(&resident->each_lock);
    count_each(commit, engine, changes);
}

void bf_resident_end(struct bf_resident *resident, const struct bf_resident_commit *commit,
                     const struct bf_changes *changes, bool is_written)
{
    if (commit->each.count > 0)
        pthread_mutex_unlock(&resident->each_lock);
    if (!is_written)
        return;
    update_users(resident, commit, changes, BF_CHANGE_DELETE);
    for (uint32_t i = 0; i < commit->delta_count; i++) {
        const struct bf_resident_delta *delta = &commit->deltas[i];
        atomic_fetch_add_explicit(&resident->counts[delta->table][delta->group],
                                  (uint64_t)(int64_t)delta->by, memory_order_relaxed);
    }
}

void bf_resident_commit_clear(struct bf_resident_commit *commit)
{
    commit->delta_count = 0;
    commit->each.count = 0;
    commit->users.count = 0;
}

void bf_resident_commit_fini(struct bf_resident_commit *commit)
{
    bf_gather_fini(&commit->look);
    free(commit->deltas);
    free(commit->each.at);
    free(commit->users.at);
}
