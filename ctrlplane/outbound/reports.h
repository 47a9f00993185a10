/*
 * The last report of each worker on each pool of connections (BF_RCPT_POOL). For status and metrics
 * only: nothing is decided by it. One a node, BF_PUSH_POOLS_MAX pools by BF_WORKERS_MAX workers.
 * Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/shm/push_wire.h"

struct bf_pool_reports;

/* NULL: no memory. */
struct bf_pool_reports *bf_pool_reports_create(void);
void bf_pool_reports_destroy(struct bf_pool_reports *reports); /* NULL is fine */

/* Takes a receipt: struct bf_rcpt_pool and its text. False: malformed. If there is no room, the new
 * pool takes the place of the one whose last report is oldest. */
bool bf_pool_reports_take(struct bf_pool_reports *reports, const void *bytes, uint32_t len,
                          uint64_t now_ms);
/* Call it when detached: no worker holds a connection any more. NULL is fine. */
void bf_pool_reports_forget(struct bf_pool_reports *reports);

/* A pool on all workers together. */
struct bf_pool_report {
    uint32_t workers; /* that reported; 0: nobody has */
    uint32_t connections, connecting;
    uint32_t streams, streams_max, waiting;
    uint64_t failures, goaways;           /* since the pool was made */
    uint64_t text_ms;                     /* wall: when the text below was first heard; 0: none */
    char text[BF_PUSH_POOL_TEXT_MAX + 1]; /* of the last failure or GOAWAY */
};
/* False: no worker has reported the pool; *ret is then empty. */
bool bf_pool_reports_get(struct bf_pool_reports *reports, uint32_t pool,
                         struct bf_pool_report *ret);
