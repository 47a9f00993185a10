/*
 * A channel for tests, whose provider is the test: it sees what left and answers. One folder and
 * one row of the table, so that whatever else it needs would be a line too much elsewhere. It has
 * the id of a channel that no node does yet.
 *
 * Everybody can be reached at one place; who is named "both..." at two. What launch() prepares
 * leaves by flush(), on the shard's thread; the test takes it from there on its own.
 */
#pragma once

#include "channels/channel.h"

extern const struct bf_channel_ops toy_ops;

/* The pool that everything goes by, with an id that push may have too. */
#define TOY_POOL 1u

struct toy_sent {
    uint64_t attempt;
    char user[32], title[32];
    struct bf_id message_id, endpoint_id;
    uint32_t number;  /* of the attempt, from 0 */
    bool is_recorded; /* nothing of the turn's batch was left to be written when it left */
};

/* The next that left, oldest first; waits for it. False: none within 5 s. */
bool toy_take(struct toy_sent *ret);
/* Whether nothing more has left by now. */
bool toy_is_quiet(void);
/* The provider's answer: 2xx taken, 410 dead endpoint, 400 bad request, 429 slow down, 503 later.
 */
void toy_answer(uint64_t attempt, unsigned status);
/* From now on the pool has no credential. */
void toy_set_ready(bool is_ready);
/* What the test's provider called dead: the user's name, or "". */
const char *toy_dead(void);
