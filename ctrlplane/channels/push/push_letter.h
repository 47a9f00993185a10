/*
 * The body of a push's dead letter: who it was for and what it said, so that people can read it and
 * a redrive can send it again.
 *
 *   {"tenant":T,"user_id":U,"device_id":UUID,"lane":"normal","expires":MS,"redrive":N,
 *    "notification":{..},"overrides":{..}?}
 *
 * Pure; any thread, one owner.
 */
#pragma once

#include <stdint.h>
#include <yyjson.h>

#include "belfry/base/cursor.h"
#include "belfry/base/id.h"
#include "belfry/base/limits.h"

struct bf_push_letter {
    /* views into the document below */
    struct bf_bytes tenant, user;
    struct bf_bytes title, type, category, topic; /* of the notification, "" = none */
    struct bf_id device_id;
    enum bf_lane lane;
    uint64_t expires_ms;       /* wall */
    uint32_t redrive;          /* times that it was put back before */
    struct bf_bytes fragment;  /* as struct bf_event has it; numbers as they were written */
    struct bf_bytes overrides; /* "" = none */
    char *texts[2];            /* what the two are views into */
    yyjson_doc *doc;
};

/* 0; the letter is then closed with bf_push_letter_close. BF_ERR_CORRUPT: it is not of this form;
 * BF_ERR_NO_MEMORY. */
int bf_push_letter_read(struct bf_bytes body, struct bf_push_letter *ret);
void bf_push_letter_close(struct bf_push_letter *letter);
