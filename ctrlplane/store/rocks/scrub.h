/*
 * Getting bytes off the disk: what was deleted or overwritten still lies in older data files, in
 * the write-ahead log, and keys also in the manifest. A scrub flushes the memtables (which ends the
 * logs that held them), and compacts exactly those data files that lie over given keys down to the
 * last level, where nothing of a deleted row survives. The manifest is written anew with every
 * change of files (rocks.c). Blocking: minutes where much is to be rewritten. One thread.
 */
#pragma once

#include "store/rocks/rocks.h"
#include "store/scrub.h"

/* Memtables of all families become files. 0 or BF_ERR_STORE. */
int bf_rocks_flush(const struct bf_rocks *rocks);
/* After a flush: keys of one column family. 0; BF_ERR_STORE; -ECANCELED: the pace ended it. Sorts
 * |spans|. */
int bf_rocks_scrub(const struct bf_rocks *rocks, uint32_t cf, struct bf_spans *spans,
                   const struct bf_pace *pace);
/* Ends a scrub under way, in the middle of a file, and lets no other begin; its pace must already
 * say no. Any thread; before closing. */
void bf_rocks_stop_scrub(const struct bf_rocks *rocks);
