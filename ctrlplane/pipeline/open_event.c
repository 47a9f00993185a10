/* See open_event.h. Layout: struct bf_open_event, legs, raw bytes. */
#include "pipeline/open_event.h"

#include <stdlib.h>
#include <string.h>

#include "belfry/base/time.h"

_Static_assert(sizeof(struct bf_open_event) % _Alignof(struct bf_leg) == 0, "legs follow it");

struct bf_leg *bf_open_event_leg(struct bf_open_event *open, uint32_t index)
{
    return (struct bf_leg *)(void *)(open + 1) + index;
}

static struct bf_bytes copy_to(char **at, struct bf_bytes from)
{
    struct bf_bytes to = {.at = *at, .len = from.len};
    if (from.len)
        memcpy(*at, from.at, from.len);
    *at += from.len;
    return to;
}

struct bf_open_event *bf_open_event_create(struct bf_event *event, uint32_t legs,
                                           struct bf_bytes raw_meta, struct bf_bytes raw_body)
{
    size_t bytes =
        sizeof(struct bf_open_event) + legs * sizeof(struct bf_leg) + raw_meta.len + raw_body.len;
    struct bf_open_event *open = malloc(bytes);
    if (!open) {
        bf_event_unref(event);
        return NULL;
    }
    memset(open, 0, sizeof(*open) + legs * sizeof(struct bf_leg));
    open->event = event;
    open->opened_us = bf_mono_ns() / 1000;
    char *at = (char *)bf_open_event_leg(open, legs);
    open->raw_meta = copy_to(&at, raw_meta);
    open->raw_body = copy_to(&at, raw_body);
    atomic_init(&open->legs_open, legs);
    for (uint32_t i = 0; i < legs; i++) {
        struct bf_leg *leg = bf_open_event_leg(open, i);
        leg->msg.kind = BF_MSG_LEG;
        leg->open = open;
        leg->index = i;
    }
    return open;
}

void bf_open_event_post(struct bf_core *core, struct bf_open_event *open, uint32_t legs)
{
    /* the last post may settle and free the open event: nothing is read from it after that */
    for (uint32_t i = 0; i < legs; i++) {
        struct bf_leg *leg = bf_open_event_leg(open, i);
        bf_shard_post(bf_core_shard_of(core, leg->uid), &leg->msg);
    }
}

void bf_open_event_free(struct bf_open_event *open)
{
    bf_event_unref(open->event);
    free(open);
}
