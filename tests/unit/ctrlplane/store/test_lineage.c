/* Which starts go on with the epoch, and which begin another: copies, rolled back snapshots, kills
 * in the middle of a start. */
#include "store_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/rocks/lineage.h"
#include "store/store_impl.h"

static char state[200], outside[200], copy[200];
static struct bf_store *node;

static void start(void)
{
    char err[512] = "";
    struct bf_store_options options = {
        .dir = state, .witness_dir = outside, .cache_mb = 8, .write_buffer_mb = 4};
    cr_assert_eq(bf_store_open(&options, &node, err, sizeof(err)), 0, "%s", err);
}

/* The process dies: nothing is marked clean, nothing flushed that RocksDB does not flush. */
static void kill_node(void)
{
    node->engine->ops->close(node->engine, false);
    free(node);
}

static void write_some(int rows)
{
    struct bf_batch *b = bf_batch_create(node);
    for (int i = 0; i < rows; i++) {
        bf_batch_put_value(b, text("some"), text("value"));
        write_batch(b);
    }
    bf_batch_destroy(b);
}

static void copy_files(const char *from, const char *to)
{
    struct dirent *entry;
    DIR *d = opendir(from);
    mkdir(to, 0700);
    while ((entry = readdir(d)) != NULL) {
        char command[1000];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(command, sizeof(command), "cp -p '%s/%s' '%s/'", from, entry->d_name, to);
        cr_assert_eq(system(command), 0);
    }
    closedir(d);
}

static void remove_files(const char *from, const char *but)
{
    struct dirent *entry;
    DIR *d = opendir(from);
    while ((entry = readdir(d)) != NULL) {
        char path[600];
        snprintf(path, sizeof(path), "%s/%s", from, entry->d_name);
        if (entry->d_name[0] != '.' && (!but || strcmp(entry->d_name, but) != 0))
            cr_assert_eq(unlink(path), 0);
    }
    closedir(d);
}

static void begin(void)
{
    tmp_dir_make(dir, sizeof(dir));
    snprintf(state, sizeof(state), "%.150s/store", dir);
    snprintf(outside, sizeof(outside), "%.150s/run", dir);
    snprintf(copy, sizeof(copy), "%.150s/copy", dir);
    start();
    write_some(10);
}

static void end(void)
{
    tmp_dir_remove(dir);
}

static char epoch_before[40];
static void remember(void)
{
    snprintf(epoch_before, sizeof(epoch_before), "%s", bf_store_epoch(node));
}

static bool is_same(void)
{
    return strcmp(bf_store_epoch(node), epoch_before) == 0;
}

TestSuite(lineage, .init = begin, .fini = end);

Test(lineage, kills_and_stops_go_on)
{
    remember();
    for (int i = 0; i < 3; i++) {
        write_some(5);
        bf_store_witness(node);
        kill_node();
        start();
        cr_assert(is_same(), "killed %d times", i + 1);
        bf_store_close(node);
        start();
        cr_assert(is_same(), "stopped %d times", i + 1);
    }
    bf_store_close(node);
}

Test(lineage, a_snapshot_that_keeps_every_inode_is_told_by_the_witness)
{
    struct bf_stamp stamp;
    const char *why;
    remember();
    kill_node();
    copy_files(state, copy);
    start();
    cr_assert(is_same());
    write_some(5);
    bf_store_witness(node);
    kill_node();
    cr_assert(bf_stamp_read(state, &stamp, &why));
    remove_files(state, NULL);
    copy_files(copy, state);
    /* the stamp of the snapshot, with its inode as a snapshot would bring it back */
    cr_assert(!bf_stamp_read(state, &stamp, &why));
    cr_assert_eq(bf_stamp_write(state, &stamp), 0);
    cr_assert(bf_stamp_read(state, &stamp, &why));
    start();
    cr_assert(!is_same(), "an older state went on with the epoch");
    cr_assert(memcmp(bf_store_epoch(node), epoch_before, 17) == 0, "the id stays, the count rises");
    bf_store_close(node);
}

Test(lineage, a_kill_within_a_start_changes_nothing)
{
    struct bf_stamp stamp;
    const char *why;
    remember();
    bf_store_close(node);
    cr_assert(bf_stamp_read(state, &stamp, &why));
    /* killed between stamp and rows */
    struct bf_stamp fresh = {.start = 77, .previous = stamp.start};
    cr_assert_eq(bf_stamp_write(state, &fresh), 0);
    start();
    cr_assert(is_same());
    kill_node();
    start();
    cr_assert(is_same());
    bf_store_close(node);
}

Test(lineage, what_is_missing_outside_or_inside_is_not_trusted)
{
    char path[300];
    remember();
    kill_node();
    snprintf(path, sizeof(path), "%s/store.witness", outside);
    cr_assert_eq(unlink(path), 0);
    start();
    cr_assert(!is_same(), "nothing outside knows how far it was");
    remember();
    bf_store_close(node);
    snprintf(path, sizeof(path), "%s/STARTED", state);
    cr_assert_eq(unlink(path), 0);
    start();
    cr_assert(!is_same(), "a copy without the stamp");
    remember();
    bf_store_close(node);
    start();
    cr_assert(is_same(), "told once");
    bf_store_close(node);
}

/* The former version's directory has the epoch's row alone. */
static void forget_lineage(void)
{
    char path[300];
    struct bf_key key;
    struct bf_batch *b = bf_batch_create(node);
    bf_key_begin(&key, BF_T_META);
    bf_key_raw(&key, "lineage", 7);
    bf_batch_delete(b, key.at, key.len);
    write_batch(b);
    bf_batch_destroy(b);
    kill_node();
    snprintf(path, sizeof(path), "%s/STARTED", state);
    cr_assert_eq(unlink(path), 0);
}

Test(lineage, an_upgrade_goes_on_and_a_backup_of_before_it_does_not)
{
    char path[300];
    remember();
    forget_lineage();
    copy_files(state, copy);
    snprintf(path, sizeof(path), "%s/store.witness", outside);
    cr_assert_eq(unlink(path), 0);
    start();
    cr_assert(is_same(), "an upgrade in place");
    bf_store_close(node);
    remove_files(state, NULL);
    copy_files(copy, state);
    start();
    cr_assert(!is_same(), "the witness knows that a later version ran it");
    bf_store_close(node);
}

Test(lineage, the_same_copy_twice_gives_two_epochs)
{
    char path[300], first[40];
    bf_store_close(node);
    copy_files(state, copy);
    snprintf(path, sizeof(path), "%s/store.witness", outside);
    for (int i = 0; i < 2; i++) {
        remove_files(state, NULL);
        copy_files(copy, state);
        unlink(path); /* another machine */
        start();
        if (i == 0)
            snprintf(first, sizeof(first), "%s", bf_store_epoch(node));
        else
            cr_assert(strcmp(first, bf_store_epoch(node)) != 0);
        bf_store_close(node);
    }
}
