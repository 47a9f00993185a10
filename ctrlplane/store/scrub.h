/*
 * What is to leave the disk: what was deleted or overwritten still lies in older files of an engine
 * until those are rewritten. Spans of keys say where it lies; a pace lets deliveries have the disk
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
