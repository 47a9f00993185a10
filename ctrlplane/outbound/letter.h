/*
 * The body of a leg's dead letter: who it was for and what it said, so that people can read it and
 * a redrive can send it again.
 *
 *   {"tenant":T,"user_id":U,"device_id":UUID,"lane":"normal","expires":MS,"redrive":N,
 *    "notification":{..},"overrides":{..}?}
 *
 * Pure; any thread, one owner.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

#include "belfry/base/cursor.h"
#include "belfry/base/id.h"
#include "belfry/base/limits.h"
#include "store/legs.h"

struct bf_letter {
    /* borrowed from the document below */
    struct bf_bytes tenant, user;
    struct bf_bytes title, type, category, topic; /* of the notification, "" = none */
    struct bf_id endpoint_id; /* all zero: of the person, no endpoint had a part in it */
    enum bf_lane lane;
    uint64_t expires_ms;       /* wall */
    uint32_t redrive;          /* times that it was put back before */
    struct bf_bytes fragment;  /* as struct bf_event has it; numbers as they were written */
    struct bf_bytes overrides; /* "" = none */
    char *texts[2];            /* owns what the two point to */
    yyjson_doc *doc;
};

/* 0; the letter is then closed with bf_letter_close. BF_ERR_CORRUPT: it is not of this form;
 * BF_ERR_NO_MEMORY. */
int bf_letter_read(struct bf_bytes body, struct bf_letter *ret);
void bf_letter_close(struct bf_letter *letter);

/* The body for |row| into |out|, which has room for its texts and 2 KB more. Its length. */
size_t bf_letter_write(const struct bf_leg_row *row, uint8_t *out, size_t cap);

/*
 * A letter on its way to the shard that sends it again: when it was written, its tag, its event's
 * meta and its body, as bytes. |*ret_bytes| is malloc'ed, the caller frees. 0 or BF_ERR_NO_MEMORY.
 */
struct bf_carried_letter {
    uint64_t at_ms, tag;
    struct bf_bytes meta, body;
};
int bf_letter_carry(const struct bf_carried_letter *letter, uint8_t **ret_bytes, size_t *ret_len);
/* Borrowed from |bytes|. False: damaged. */
bool bf_letter_unpack(struct bf_bytes bytes, struct bf_carried_letter *ret);
