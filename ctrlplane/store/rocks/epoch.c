/*
 * The epoch (DESIGN 4.5): as long as it is the same, sequence numbers mean the same messages. A
 * start keeps it only if everything shows that this directory is the one that ran here last and
 * that nothing is missing; otherwise a new one begins. A new one costs each client one listing of
 * its inbox; keeping a wrong one would lose messages without notice.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "store/rocks/engine.h"
#include "store/rocks/lineage.h"
#include "store/value.h"

/* Made beside the data by `belfryctl restore`, or by hand: the next start begins a new epoch. */
#define RESTORED_MARKER "RESTORED"
/* Text of /proc/sys/kernel/random/boot_id. */
#define BOOT_ID_BYTES 36u
/* After a reboot a witness in /run is gone. A store that was closed cleanly is then trusted for
 * this long: a machine restarts faster than that, and a snapshot of a whole disk that somebody puts
 * back is rarely that young. */
#define UNWITNESSED_MS (UINT64_C(3600) * 1000u)
/* The same backup may be put back twice, on machines that know nothing of each other: the count
 * rises by a random number, so that the two do not hand out one epoch. One pair in a million still
 * does; a count lasts for 8,000 restores. */
#define RESTORE_STEP_MASK 0xfffffu

struct epoch_row {
    uint64_t id;
    uint32_t count;
    bool is_clean;
    char boot_id[BOOT_ID_BYTES];
};

/* Which start wrote the store last; its own row, so that the former version reads the epoch's. */
struct lineage_row {
    uint64_t start;     /* as in the stamp */
    uint64_t closed_ms; /* wall; 0: not closed cleanly since */
};

static void meta_key(struct bf_key *key, const char *name)
{
    bf_key_begin(key, BF_T_META);
    bf_key_raw(key, name, strlen(name));
}

static int get_row(struct bf_rocks_engine *s, const struct bf_key *key, struct bf_row *ret)
{
    return bf_rocks_engine_get(&s->engine, key, ret);
}

/* Zeros where the kernel does not tell: then every unclean stop counts as a reboot. */
static void read_boot_id(char out[BOOT_ID_BYTES])
{
    memset(out, 0, BOOT_ID_BYTES);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (read(fd, out, BOOT_ID_BYTES) != (ssize_t)BOOT_ID_BYTES)
        memset(out, 0, BOOT_ID_BYTES);
    close(fd);
}

static int get_epoch(struct bf_rocks_engine *s, struct epoch_row *ret)
{
    struct bf_key key;
    struct bf_row row;
    meta_key(&key, "epoch");
    int rc = get_row(s, &key, &row);
    if (rc != 0)
        return rc;
    struct bf_reader r = bf_value_reader(row.value, NULL);
    ret->id = bf_get_u64(&r);
    ret->count = bf_get_u32(&r);
    ret->is_clean = bf_get_u8(&r) != 0;
    const uint8_t *boot_id = bf_get_raw(&r, BOOT_ID_BYTES);
    if (bf_value_is_read(&r))
        memcpy(ret->boot_id, boot_id, BOOT_ID_BYTES);
    else
        rc = bf_store_corrupt("epoch", key.at, key.len);
    bf_row_put(&row);
    return rc;
}

/* False: the former version wrote the store, or the row does not decode: then nothing is known. */
static bool get_lineage(struct bf_rocks_engine *s, struct lineage_row *ret)
{
    struct bf_key key;
    struct bf_row row;
    meta_key(&key, "lineage");
    if (get_row(s, &key, &row) != 0)
        return false;
    struct bf_reader r = bf_value_reader(row.value, NULL);
    ret->start = bf_get_u64(&r);
    ret->closed_ms = bf_get_u64(&r);
    bool ok = bf_value_is_read(&r);
    bf_row_put(&row);
    return ok;
}

static void put_row(struct bf_changes *changes, const char *name, const struct bf_writer *value)
{
    struct bf_key key;
    BF_BUG_ON(value->failed);
    meta_key(&key, name);
    bf_changes_add(changes, BF_CHANGE_PUT, key.at, key.len, value->buf, value->len);
}

static int put_rows(struct bf_rocks_engine *s, const struct epoch_row *epoch,
                    const struct lineage_row *lineage)
{
    uint8_t value[32 + BOOT_ID_BYTES];
    struct bf_changes changes = {0};
    struct bf_committer *c = bf_rocks_committer_create(&s->engine);
    if (c == NULL)
        return -ENOMEM;
    struct bf_writer w = {.buf = value, .cap = sizeof(value)};
    bf_put_u8(&w, BF_ROW_VERSION);
    bf_put_u64(&w, epoch->id);
    bf_put_u32(&w, epoch->count);
    bf_put_u8(&w, epoch->is_clean);
    bf_put_raw(&w, epoch->boot_id, BOOT_ID_BYTES);
    put_row(&changes, "epoch", &w);
    w.len = 0;
    bf_put_u8(&w, BF_ROW_VERSION);
    bf_put_u64(&w, lineage->start);
    bf_put_u64(&w, lineage->closed_ms);
    put_row(&changes, "lineage", &w);
    int rc = bf_rocks_commit(c, &changes, true);
    bf_rocks_committer_destroy(c);
    bf_changes_fini(&changes);
    return rc;
}

static bool marker_path(const struct bf_rocks_engine *s, char *path, size_t path_len)
{
    int n = snprintf(path, path_len, "%s/" RESTORED_MARKER, s->dir);
    return n > 0 && (size_t)n < path_len;
}

/* ---- is it the one that ran last ---- */

/* All that a start has to judge by. */
struct evidence {
    struct epoch_row epoch;
    bool has_lineage; /* false: the former version wrote the store last */
    struct lineage_row lineage;
    bool has_stamp;
    struct bf_stamp stamp;
    const char *stamp_why; /* without a stamp */
    bool asks_witness, has_witness;
    struct bf_witness witness;
    uint64_t sequence; /* that the store has come to */
    bool same_boot;
};

static const char *witness_against(const struct evidence *e)
{
    if (!e->has_witness || e->witness.store_id != e->epoch.id)
        return NULL;
    if (!e->has_lineage)
        return "it is older than the version that ran it";
    if (e->witness.count > e->epoch.count || e->witness.sequence > e->sequence)
        return "it was written further than it is now";
    return NULL;
}

/* Without a witness nothing outside the directory knows how far the store was. */
static const char *lack_of_witness(const struct evidence *e)
{
    if (!e->asks_witness || (e->has_witness && e->witness.store_id == e->epoch.id))
        return NULL;
    if (e->same_boot)
        return "the file that would tell how far it was written is gone (store.witness_dir)";
    uint64_t now_ms = bf_wall_ms();
    bool is_young = e->lineage.closed_ms <= now_ms && /* false for 0 too: never closed */
                    now_ms - e->lineage.closed_ms < UNWITNESSED_MS;
    return is_young ? NULL
                    : "it was closed long ago, and the file that would tell how far it was written"
                      " is gone (store.witness_dir)";
}

/* Why the store is not known to be the one that ran here last; NULL: it is. */
static const char *why_restored(const struct bf_rocks_engine *s, const struct evidence *e)
{
    const char *why = witness_against(e);
    if (why != NULL)
        return why;
    if (!e->has_lineage) /* an upgrade, or a backup of before it */
        return bf_lineage_looks_copied(s->dir) ? "its files are copies" : NULL;
    if (!e->has_stamp)
        return e->stamp_why;
    if (e->stamp.start != e->lineage.start && e->stamp.previous != e->lineage.start)
        return "its data and the file of its last start are of different starts";
    return lack_of_witness(e);
}

static int collect(struct bf_rocks_engine *s, struct evidence *e)
{
    char boot_id[BOOT_ID_BYTES];
    int rc = get_epoch(s, &e->epoch);
    read_boot_id(boot_id);
    e->same_boot = boot_id[0] != 0 && memcmp(boot_id, e->epoch.boot_id, BOOT_ID_BYTES) == 0;
    e->has_lineage = get_lineage(s, &e->lineage);
    e->has_stamp = bf_stamp_read(s->dir, &e->stamp, &e->stamp_why);
    e->asks_witness = s->witness_dir[0] != 0;
    e->has_witness = e->asks_witness && bf_witness_read(s->witness_dir, &e->witness);
    e->sequence = rocksdb_get_latest_sequence_number(s->rocks.db);
    memcpy(e->epoch.boot_id, boot_id, BOOT_ID_BYTES);
    return rc;
}

/* ---- the start ---- */

static void raise_restored(const struct bf_rocks_engine *s, struct evidence *e, const char *why)
{
    uint32_t step = 0;
    bool is_known = e->has_witness && e->witness.store_id == e->epoch.id;
    if (is_known && e->witness.count > e->epoch.count)
        e->epoch.count = e->witness.count;
    if (getrandom(&step, sizeof(step), 0) != (ssize_t)sizeof(step))
        step = (uint32_t)bf_wall_ms();
    e->epoch.count += 1 + (step & RESTORE_STEP_MASK);
    BF_WARN(
        "ctrlplane",
        "store: %s is not known to be the store that ran here last: %s. A new epoch begins: each"
        " client is told that it cannot resume, and lists its inbox once",
        s->dir, why);
}

/* The stamp first, naming the start before too, so that a kill between the two changes nothing. Of
 * a restored store the rows first: the stamp is the evidence, and a kill in between must not end
 * it. */
static int record_start(struct bf_rocks_engine *s, const struct evidence *e, bool is_restored)
{
    struct lineage_row lineage = {.start = s->start};
    struct bf_stamp stamp = {.start = s->start, .previous = e->lineage.start};
    int rc = is_restored ? 0 : bf_stamp_write(s->dir, &stamp);
    if (rc == 0)
        rc = put_rows(s, &e->epoch, &lineage);
    if (rc == 0 && is_restored)
        rc = bf_stamp_write(s->dir, &stamp);
    if (rc == 0)
        bf_stamp_settle(s->dir, s->start);
    return rc;
}

static void open_witness(struct bf_rocks_engine *s)
{
    if (s->witness_dir[0] == 0)
        return;
    s->witnessed = rocksdb_get_latest_sequence_number(s->rocks.db);
    struct bf_witness w = {s->epoch_id, s->epoch_count, s->witnessed};
    int rc = bf_rocks_make_dir(s->witness_dir);
    s->witness_fd = rc == 0 ? bf_witness_open(s->witness_dir, &w) : rc;
    if (s->witness_fd < 0)
        BF_WARN("ctrlplane",
                "store: cannot write to %s (store.witness_dir): %s. The next start cannot know that"
                " nothing is missing, and begins a new epoch",
                s->witness_dir, bf_err_text(s->witness_fd));
}

void bf_rocks_witness(struct bf_engine *engine)
{
    struct bf_rocks_engine *s = bf_rocks_of(engine);
    uint64_t sequence = rocksdb_get_latest_sequence_number(s->rocks.db);
    if (s->witness_fd < 0 || sequence == s->witnessed)
        return;
    struct bf_witness w = {s->epoch_id, s->epoch_count, sequence};
    int rc = bf_witness_update(s->witness_fd, &w);
    s->witnessed = sequence;
    if (rc == 0)
        return;
    BF_WARN("ctrlplane", "store: the witness in %s cannot be written any more: %s", s->witness_dir,
            bf_err_text(rc));
    close(s->witness_fd);
    s->witness_fd = -1;
}

int bf_rocks_load_epoch(struct bf_rocks_engine *s, char *err, size_t err_len)
{
    struct evidence e = {0};
    char marker[600];
    int rc = collect(s, &e);
    bool is_marked = marker_path(s, marker, sizeof(marker)) && access(marker, F_OK) == 0;
    bool is_first = rc == BF_ERR_NOT_FOUND;
    if (rc != 0 && !is_first) {
        snprintf(err, err_len, "the epoch of the store in %s does not decode; restore a backup",
                 s->dir);
        return rc;
    }
    const char *why = is_first ? NULL : why_restored(s, &e);
    bool is_reboot = !is_first && !e.epoch.is_clean && !e.same_boot;
    if (getrandom(&s->start, sizeof(s->start), 0) != (ssize_t)sizeof(s->start) ||
        (is_first && getrandom(&e.epoch.id, sizeof(e.epoch.id), 0) != (ssize_t)sizeof(e.epoch.id)))
        return -errno;
    if (why != NULL)
        raise_restored(s, &e, why);
    else if (is_marked || is_reboot)
        e.epoch.count++;
    e.epoch.is_clean = false;
    rc = record_start(s, &e, why != NULL);
    if (rc == 0 && is_marked && unlink(marker) != 0)
        BF_WARN("ctrlplane", "store: cannot remove %s; the next start begins a new epoch again",
                marker);
    s->epoch_id = e.epoch.id;
    s->epoch_count = e.epoch.count;
    snprintf(s->engine.epoch, sizeof(s->engine.epoch), "%016llx-%u", (unsigned long long)e.epoch.id,
             e.epoch.count);
    if (rc == 0)
        open_witness(s);
    else
        snprintf(err, err_len, "cannot record the start of the store in %s: %s", s->dir,
                 bf_err_text(rc));
    return rc;
}

int bf_rocks_mark_clean(struct bf_rocks_engine *s)
{
    struct epoch_row epoch = {.id = s->epoch_id, .count = s->epoch_count, .is_clean = true};
    struct lineage_row lineage = {.start = s->start, .closed_ms = bf_wall_ms()};
    read_boot_id(epoch.boot_id);
    return put_rows(s, &epoch, &lineage);
}
