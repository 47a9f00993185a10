/*
 * What has to leave the disk: deleted and overwritten rows are still in older files of an engine
 * until those are rewritten. Spans of keys say where they are; a pace leaves the disk to deliveries
 * in between.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

/* Keys from |from| to |to|, both included. */
struct bf_span {
    struct bf_bytes from, to;
};

/* Grows as needed, keys are copied. Zero is empty. */
struct bf_spans {
    struct bf_span *at;
    uint32_t count, cap;
    bool failed; /* out of memory once: the list is not complete */
};
void bf_spans_add(struct bf_spans *spans, struct bf_bytes from, struct bf_bytes to);
void bf_spans_free(struct bf_spans *spans);

/* Called between two pieces of work with the time that the last one took. It may wait, so that
 * deliveries can use the disk. False: stop here. */
struct bf_pace {
    bool (*go_on)(void *arg, uint64_t took_ns);
    void *arg;
};
