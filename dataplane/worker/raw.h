/*
 * --raw: the least that a broadcast can cost, against which broadcasts are measured (PERFORMANCE,
 * P5), over the same sockets of the same process. The worker runs as always; in addition three
 * topics of BF_CMD_BROADCAST make it send the block's bytes to every upgraded socket and do nothing
 * else: no queue, no sequence rule, no slices. The block is returned when all sends have ended, and
 * the counter `broadcasts` rises by one; `sends`, `sends_failed` and `bytes_sent` count as usual.
 *
 *   topic BF_RAW_URING    io_uring sends, 256 a submit
 *   topic BF_RAW_INSTALL  nothing is sent: opens a descriptor for each socket (needed once before
 *                         the next one; at most as many as the process may have)
 *   topic BF_RAW_SEND     plain send() in a loop over these descriptors
 *
 * bseq and prev are ignored. A socket whose buffer is full counts in sends_failed. Sockets with
 * frames of the normal path under way are skipped (counted likewise), so alternate rounds, not
 * overlap them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/shm/command.h"

struct bf_worker;

#define BF_RAW_URING   UINT64_MAX
#define BF_RAW_SEND    (UINT64_MAX - 1u)
#define BF_RAW_INSTALL (UINT64_MAX - 2u)
/* Sends a submit, as P5 defines the floor. */
#define BF_RAW_BATCH 256u

struct bf_raw {
    struct bf_worker *worker;
    int *fds; /* by slot, -1 = none; only slots that were installed are touched */
    uint32_t *generations;
};

/* Start of the worker, with --raw. 0 or BF_ERR_NO_MEMORY. */
int bf_raw_init(struct bf_worker *w);
