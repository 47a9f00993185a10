/*
 * The first step of a shard's turn: everything that the decision about a leg needs, read from the
 * store and from the person's record. Nothing is changed here but what reading finds out by itself
 * (heads after a kill, whether a person has devices). Shard thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "channels/channel.h"
#include "decide/decide.h"
#include "fanout/msg.h"
#include "store/devices.h"

struct bf_shard;
struct bf_user;

/* Legs whose memory is prefetched together, before the first of them is decided. */
#define BF_GATHER_AHEAD_MAX 16u

/* What was read for the push of one leg. It is large, so a shard has only one, for the leg that is
 * being decided. */
struct bf_push_look {
    uint32_t count;                                  /* devices, dead ones too */
    uint32_t live;                                   /* of them, those that may be pushed to */
    struct bf_endpoint devices[BF_DEVICES_USER_MAX]; /* views into |bytes| */
    size_t bytes_used;
    char bytes[BF_DEVICES_USER_MAX * (BF_DEVICE_APP_BYTES_MAX + BF_DEVICE_SEALED_BYTES_MAX)];
    struct bf_content *content; /* opened where a push leaves in this turn; NULL: not, or not
                                 * readable */
    char why[BF_WHY_BYTES];     /* it could not be opened */
};

/* A leg and the facts about it. Not to be moved: facts point into it. */
struct bf_gathered_leg {
    struct bf_leg *leg;
    struct bf_user *user; /* NULL: not there */
    bool is_new;          /* the event makes its person: users.auto_create */
    bool is_erased;       /* erased since the event was accepted */
    uint64_t
        seq; /* of the stored in-app message of an event that comes again, if push follows it */
    struct bf_push_look *push; /* NULL: nothing was looked up */
    struct bf_subject subject;
    struct bf_person person;
    struct bf_facts facts;
};

/* Computes key and id of each leg and prefetches the memory that they will touch; for at most
 * BF_GATHER_AHEAD_MAX legs, before any of them is gathered. */
void bf_shard_gather_ahead(struct bf_shard *shard, struct bf_leg **legs, uint32_t count);
void bf_shard_gather(struct bf_shard *shard, struct bf_leg *leg, struct bf_gathered_leg *ret);
/* Gives back what was opened for it. */
void bf_shard_gather_close(struct bf_gathered_leg *gathered);

/* Whether the person is connected, as far as the shard knows. |user| NULL: nobody is. */
enum bf_presence bf_shard_presence(const struct bf_shard *shard, const struct bf_user *user);
