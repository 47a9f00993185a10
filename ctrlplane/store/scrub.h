/*
 * Getting bytes off the disk: what was deleted or overwritten still lies in older data files, in
 * the write-ahead log, and keys also in the manifest. A scrub flushes the memtables (which ends the
 * logs that held them), and compacts exactly those data files that lie over given keys down to the
 * last level, where nothing of a deleted row survives. The manifest is written anew with every
 * change of files (rocks.c). Blocking: minutes where much is to be rewritten. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "store/rocks.h"

/* Keys from |from| to |to|, both included. */
struct bf_span {
    struct bf_bytes from, to;
};

/* Of one column family; grows as needed, keys are copied. Zero is empty. */
struct bf_spans {
    struct bf_span *at;
    uint32_t count, cap;
    bool failed; /* out of memory once: the list is not whole */
};
void bf_spans_add(struct bf_spans *spans, struct bf_bytes from, struct bf_bytes to);
void bf_spans_free(struct bf_spans *spans);

/* Called between two pieces of work with the time that the last one took; may wait, so that
 * deliveries have the disk in between. False: stop here. */
struct bf_pace {
    bool (*go_on)(void *arg, uint64_t took_ns);
    void *arg;
};

/* Memtables of all families become files. 0 or BF_ERR_STORE. */
int bf_rocks_flush(const struct bf_rocks *rocks);
/* After a flush. 0; BF_ERR_STORE; -ECANCELED: the pace ended it. Sorts |spans|. */
/* Ends a scrub under way, in the middle of a file, and lets no other begin; its pace must already
 * say no. Any thread; before closing. */
void bf_rocks_stop_scrub(const struct bf_rocks *rocks);
int bf_rocks_scrub(const struct bf_rocks *rocks, uint32_t cf, struct bf_spans *spans,
                   const struct bf_pace *pace);
