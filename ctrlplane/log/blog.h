/*
 * Broadcast log (DESIGN 4.9): one order of broadcasts for the whole fleet; bseq is the place in it,
 * and numbers may be missing. Embedded: rows of the store, bseq = head + 1. Kafka: the topic
 * belfry.broadcast with one partition, bseq = offset + 1; a thread copies it into rows of the
 * store. What is read are always the rows.
 */
#pragma once

#include "store/store.h"

struct bf_conf;
struct bf_blog;

/* |on_new| is called on a thread of the log, in order, after the row is in the store. Must not
 * block. */
int bf_blog_open(const struct bf_conf *conf, struct bf_store *store,
                 void (*on_new)(void *arg, uint64_t bseq), void *arg, struct bf_blog **ret,
                 char *err, size_t err_len);
void bf_blog_close(struct bf_blog *blog);
/* Appends the row unless its event_id is known already (the log gives an event again after a
 * restart). row->bseq is ignored. Blocks until durable; returns 0, BF_ERR_LOG (the broker is away:
 * try again) or BF_ERR_STORE. One thread at a time. */
int bf_blog_append(struct bf_blog *blog, const struct bf_bcast_row *row);
uint64_t bf_blog_head(struct bf_blog *blog); /* any thread */
