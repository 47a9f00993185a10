/* Inside of the broadcast log: the table of an engine. Each engine embeds struct bf_blog first. */
#pragma once

#include "log/blog.h"

struct bf_blog_ops {
    void (*close)(struct bf_blog *blog);
    int (*append)(struct bf_blog *blog, const struct bf_bcast_row *row);
    uint64_t (*head)(struct bf_blog *blog);
};

struct bf_blog {
    const struct bf_blog_ops *ops;
};

int bf_blog_kafka_open(const struct bf_conf *conf, struct bf_store *store,
                       void (*on_new)(void *arg, uint64_t bseq), void *arg, struct bf_blog **ret,
                       char *err, size_t err_len);
