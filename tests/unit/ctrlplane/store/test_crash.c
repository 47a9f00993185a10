/*
 * What survives: a child writes and is killed at a random moment, then everything it was told is
 * written must be there, batches whole. A torn WAL tail is tolerated; a damaged byte in the middle
 * is refused at the start; a damaged block of data stops its key range and not the node.
 */
#include "store_fixture.h"

#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store_impl.h"
#include "writers.h"

static void write_for_ever(struct writer_order order, int fd);

static void make_dir(void)
{
    tmp_dir_make(dir, sizeof(dir));
    writers_start(write_for_ever);
}

static void remove_dir(void)
{
    writers_stop();
    tmp_dir_remove(dir);
}

TestSuite(store_crash, .init = make_dir, .fini = remove_dir, .timeout = 300);

#define ROWS_PER_BATCH 3

static void put_round(struct bf_batch *b, uint32_t n)
{
    for (int i = 0; i < ROWS_PER_BATCH; i++) {
        char name[32], json[200];
        snprintf(name, sizeof(name), "%c-%u", 'a' + i, n);
        memset(json, 'x', sizeof(json));
        memcpy(json, &n, sizeof(n));
        bf_batch_put_user(b, uid("", name), (struct bf_bytes){json, sizeof(json)});
    }
}

/* Writes the rounds of its order and tells each over |fd| once it is written. Never returns. */
static void write_for_ever(struct writer_order order, int fd)
{
    char err[512];
    struct bf_store_options options = {.dir = dir, .cache_mb = 8, .write_buffer_mb = 4};
    if (bf_store_open(&options, &store, err, sizeof(err)) != 0)
        _exit(9);
    struct bf_batch *b = bf_batch_create(store);
    for (uint32_t n = order.from; n < order.limit; n++) {
        put_round(b, n);
        if (bf_batch_write(b, n % 64 == 0) != 0 || write(fd, &n, sizeof(n)) != sizeof(n))
            _exit(8);
    }
    _exit(0); /* as a kill: nothing is closed */
}

static bool has_row(char row, uint32_t n)
{
    char name[32], *json;
    size_t len;
    uint32_t got;
    snprintf(name, sizeof(name), "%c-%u", row, n);
    if (bf_store_get_user(store, uid("", name), &json, &len) != 0)
        return false;
    memcpy(&got, json, sizeof(got));
    free(json);
    cr_assert_eq(len, 200);
    cr_assert_eq(got, n);
    return true;
}

/* Has a writer write until it told |limit| rounds or |kill_after_us| passed; returns what it told
 * last. */
static uint32_t run_child(uint32_t from, uint32_t limit, useconds_t kill_after_us)
{
    uint32_t told = from, n;
    struct writer *w = writer_order(from, limit);
    if (kill_after_us > 0) {
        cr_assert_eq(read(w->told, &n, sizeof(n)), (ssize_t)sizeof(n), "the writer wrote nothing");
        told = n;
        usleep(kill_after_us);
        kill(w->pid, SIGKILL);
    }
    while (read(w->told, &n, sizeof(n)) == (ssize_t)sizeof(n))
        told = n;
    writer_end(w);
    return told;
}

Test(store_crash, killed_at_random)
{
    uint32_t next = 0;
    unsigned seed = (unsigned)getpid();
    for (int round = 0; round < 10; round++) {
        uint32_t told = run_child(next, UINT32_MAX, 1000 + (useconds_t)rand_r(&seed) % 60000);
        store_open();
        for (uint32_t n = 0; n <= told; n++)
            for (int i = 0; i < ROWS_PER_BATCH; i++)
                cr_assert(has_row((char)('a' + i), n), "seed %u: round %u of %u lost", seed, n,
                          told);
        /* the batch after the last told one: whole or not at all */
        bool first = has_row('a', told + 1);
        for (int i = 1; i < ROWS_PER_BATCH; i++)
            cr_assert_eq(has_row((char)('a' + i), told + 1), first, "half a batch");
        next = told + 2;
        struct bf_batch *b = bf_batch_create(store); /* fill a possible gap */
        put_round(b, told + 1);
        write_batch(b);
        bf_batch_destroy(b);
        bf_store_close(store);
    }
}

/* Newest (highest) file of a pattern, by number in its name. */
static void newest(const char *pattern, char out[400])
{
    char full[400];
    glob_t found;
    snprintf(full, sizeof(full), "%s/%s", dir, pattern);
    cr_assert_eq(glob(full, 0, NULL, &found), 0, "no %s", full);
    snprintf(out, 400, "%s", found.gl_pathv[found.gl_pathc - 1]);
    globfree(&found);
}

static off_t file_size(const char *path)
{
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    return st.st_size;
}

static void flip(const char *path, off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    cr_assert(fd >= 0);
    cr_assert_eq(pread(fd, &byte, 1, at), 1);
    byte ^= 0x40;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

Test(store_crash, torn_tail_is_tolerated)
{
    char wal[400];
    for (off_t cut = 1; cut < 1200; cut = cut * 3 + 1) {
        uint32_t told = run_child(0, 500, 0);
        cr_assert_eq(told, 499);
        newest("*.log", wal);
        cr_assert_eq(truncate(wal, file_size(wal) - cut), 0);
        store_open();
        for (uint32_t n = 0; n < 497; n++)
            cr_assert(has_row('a', n) && has_row('c', n), "round %u, %d bytes cut", n, (int)cut);
        cr_assert_eq(has_row('a', 499), has_row('c', 499));
        bf_store_close(store);
        tmp_dir_remove(dir);
    }
}

Test(store_crash, damage_in_the_middle_of_the_wal_is_refused)
{
    char wal[400], err[512] = "";
    struct bf_store_options options = {.dir = dir, .cache_mb = 8, .write_buffer_mb = 4};
    run_child(0, 500, 0);
    newest("*.log", wal);
    flip(wal, file_size(wal) / 2);
    cr_assert_eq(bf_store_open(&options, &store, err, sizeof(err)), BF_ERR_CORRUPT);
    cr_assert(strstr(err, dir) != NULL && strstr(err, "Corruption") != NULL, "%s", err);
    flip(wal, file_size(wal) / 2);
    store_open(); /* the byte was all that was wrong: refusing has changed nothing */
    cr_assert(has_row('c', 499));
    bf_store_close(store);
}

static int count_user(void *arg, struct bf_uid u, const struct bf_user_state *state,
                      struct bf_bytes prefs)
{
    (void)u, (void)state, (void)prefs;
    ++*(int *)arg;
    return 0;
}

/* Changes a byte in the first third of the largest data file. */
static void damage_largest(void)
{
    char sst[400], pattern[300];
    glob_t all;
    off_t largest = 0;
    snprintf(pattern, sizeof(pattern), "%s/*.sst", dir);
    cr_assert_eq(glob(pattern, 0, NULL, &all), 0);
    for (size_t i = 0; i < all.gl_pathc; i++) {
        if (file_size(all.gl_pathv[i]) <= largest)
            continue;
        largest = file_size(all.gl_pathv[i]);
        snprintf(sst, sizeof(sst), "%s", all.gl_pathv[i]);
    }
    globfree(&all);
    flip(sst, largest / 3);
}

Test(store_crash, damaged_block_stops_its_range_only)
{
    int users = 0, lost = 0;
    store_open();
    struct bf_batch *b = bf_batch_create(store);
    unsigned seed = 5;
    for (uint32_t n = 0; n < 2000; n++) {
        char name[32], json[200];
        snprintf(name, sizeof(name), "a-%u", n);
        for (size_t i = 0; i < sizeof(json); i++)
            json[i] = (char)rand_r(&seed); /* does not compress: many blocks */
        bf_batch_put_user(b, uid("", name), (struct bf_bytes){json, sizeof(json)});
    }
    write_batch(b);
    bf_batch_destroy(b);
    bf_store_close(store); /* flushes */
    damage_largest();
    store_open();
    for (uint32_t n = 0; n < 2000; n++) {
        char name[32], *json;
        size_t len;
        snprintf(name, sizeof(name), "a-%u", n);
        int rc = bf_store_get_user(store, uid("", name), &json, &len);
        cr_assert(rc == 0 || rc == BF_ERR_CORRUPT, "%d", rc);
        lost += rc != 0;
        if (rc == 0)
            free(json);
    }
    cr_assert(lost > 0 && lost < 100, "%d rows in the damaged block", lost);
    cr_assert_eq(bf_store_walk_users(store, count_user, &users), BF_ERR_CORRUPT,
                 "the walk must say that it is not complete");
    bf_store_close(store);
}

/* What cannot be read whole is not erased in part: the batch goes out with what the shard does
 * next.
 */
Test(store_crash, damaged_rows_are_not_erased_in_part)
{
    struct bf_uid ann = uid("", "ann");
    char text_of[512];
    unsigned seed = 7;
    store_open();
    struct bf_batch *b = bf_batch_create(store);
    for (uint32_t n = 1; n <= 500; n++) {
        for (size_t i = 0; i < sizeof(text_of); i++)
            text_of[i] = (char)rand_r(&seed);
        struct bf_item item = {.id = id_of(n),
                               .event_id = id_of(1000 + n),
                               .seq = n,
                               .lane = BF_LANE_NORMAL,
                               .created_ms = 1,
                               .fragment = {text_of, sizeof(text_of)}};
        bf_batch_put_item(b, ann, &item, NULL);
    }
    write_batch(b);
    bf_batch_destroy(b);
    bf_store_close(store); /* flushes */
    damage_largest();
    store_open();
    b = bf_batch_create(store);
    cr_assert_eq(bf_batch_erase_user(b, ann, 2, text("api")), BF_ERR_CORRUPT);
    cr_assert_eq(bf_batch_count(b), 0, "%u rows would go", bf_batch_count(b));
    bf_batch_destroy(b);
    bf_store_close(store);
}
