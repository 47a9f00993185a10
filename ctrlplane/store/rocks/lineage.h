/*
 * Finds out whether a store directory is the one that ran here last or a copy that somebody put
 * back. The rows of a copy do not differ from those of the original, so two small files tell:
 *
 * - the stamp, "STARTED" beside the data, is made anew by each start. It names its own inode and
 * time of birth, which no copy has, and the start, which the store's rows name too.
 * - the witness, "store.witness" in a directory outside the data, says how far the store was
 *   written (RocksDB's sequence number, which never falls). A disk snapshot that was rolled back
 *   has the same inodes, but its number is lower than that of the witness.
 *
 * Only if both say "the same as before" does the epoch go on; in every other case the store begins
 * a new one, and each client lists its inbox once. Main thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bf_stamp {
    uint64_t start;    /* random, of the start that wrote it */
    uint64_t previous; /* of the start before, until the rows name this one; 0: they do */
};

/* False: there is none, or it is a copy; |ret_why| says which, for people. */
bool bf_stamp_read(const char *dir, struct bf_stamp *ret, const char **ret_why);
/* Replaces the stamp by rename. 0 or -errno. */
int bf_stamp_write(const char *dir, const struct bf_stamp *stamp);
/* The rows name its start now: forgets the previous one, in place. */
void bf_stamp_settle(const char *dir, uint64_t start);

struct bf_witness {
    uint64_t store_id;
    uint32_t count;    /* of the epoch */
    uint64_t sequence; /* the store was written at least up to here */
};

bool bf_witness_read(const char *dir, struct bf_witness *ret);
/* Makes the file anew and opens it; a descriptor, or -errno. */
int bf_witness_open(const char *dir, const struct bf_witness *witness);
/* Writes over what an open one says. Not synced: after a power failure nobody asks it. 0 or -errno.
 */
int bf_witness_update(int fd, const struct bf_witness *witness);

/* Whether a file in |dir| was born after it was last written, as copies that keep times are. For
 * the directories of a version that made no stamp. */
bool bf_lineage_looks_copied(const char *dir);
