/* What is due later in one thread: a binary heap by time. Grows to SIM_DELAY_MAX, then declines. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define SIM_DELAY_MAX (1u << 20) /* answers under way: 1,000 connections with 1,000 streams */

enum sim_delay_kind {
    SIM_DELAY_ANSWER = 0, /* of |stream| */
    SIM_DELAY_TLS,        /* the handshake may begin */
    SIM_DELAY_GOAWAY,     /* enough waited for streams to leave unprocessed */
};

struct sim_delay_row {
    uint64_t due_ns;
    uint32_t conn,
        generation; /* of the connection's slot: another generation, another connection */
    int32_t stream;
    enum sim_delay_kind kind;
};

struct sim_delay {
    struct sim_delay_row *rows;
    uint32_t count, room;
};

/* False when full or without memory: the caller acts at once. */
static inline bool sim_delay_push(struct sim_delay *d, struct sim_delay_row row)
{
    if (d->count == d->room) {
        uint32_t room = d->room ? d->room * 2 : 1024;
        struct sim_delay_row *rows =
            room > SIM_DELAY_MAX ? NULL : realloc(d->rows, room * sizeof(*rows));
        if (!rows)
            return false;
        d->rows = rows;
        d->room = room;
    }
    uint32_t i = d->count++;
    for (; i > 0 && d->rows[(i - 1) / 2].due_ns > row.due_ns; i = (i - 1) / 2)
        d->rows[i] = d->rows[(i - 1) / 2];
    d->rows[i] = row;
    return true;
}

/* Takes the earliest row when it is due. */
static inline bool sim_delay_pop(struct sim_delay *d, uint64_t now_ns, struct sim_delay_row *ret)
{
    if (d->count == 0 || d->rows[0].due_ns > now_ns)
        return false;
    *ret = d->rows[0];
    struct sim_delay_row last = d->rows[--d->count];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= d->count)
            break;
        if (child + 1 < d->count && d->rows[child + 1].due_ns < d->rows[child].due_ns)
            child++;
        if (d->rows[child].due_ns >= last.due_ns)
            break;
        d->rows[i] = d->rows[child];
        i = child;
    }
    d->rows[i] = last;
    return true;
}
