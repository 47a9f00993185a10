/*
 * Frames of belfry.v1.json that ctrlplane sends, encoded once with their WebSocket header (DESIGN
 * 5). Each writer returns the frame's bytes, or what it needs when |cap| is too small (nothing
 * usable is written then). Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/id.h"
#include "belfry/base/limits.h"

/* n: {"t":"n",["seq":S,]["lane":L,]"id":ID,<fragment>}; seq 0: a transient one, without seq */
size_t bf_frame_n(uint8_t *out, size_t cap, enum bf_lane lane, uint64_t seq, const struct bf_id *id,
                  struct bf_bytes fragment);
/* Upper bound of bf_frame_n's result. */
size_t bf_frame_n_max(size_t fragment_bytes);
/* b: {"t":"b","bseq":B,"id":ID,<fragment>} */
size_t bf_frame_b(uint8_t *out, size_t cap, uint64_t bseq, const struct bf_id *id,
                  struct bf_bytes fragment);

struct bf_welcome {
    uint32_t worker;
    uint64_t conn;
    struct bf_bytes user;
    struct bf_bytes epoch;
    uint64_t head[BF_LANE_COUNT];
    uint64_t b;
    bool resumed;
    uint32_t unread;
    uint32_t ping_ms;
    uint64_t expires_ms; /* 0: left out */
};
size_t bf_frame_welcome(uint8_t *out, size_t cap, const struct bf_welcome *w);

/* {"t":"state","id":ID,"read"|"seen"|"archived":true|false,"unread":N} */
size_t bf_frame_state(uint8_t *out, size_t cap, const struct bf_id *id, const char *member,
                      bool value, uint32_t unread);
/* {"t":"ok",["ref":R,]"unread":N} and {"t":"error","code","message","temporary"[,"ref"]} */
size_t bf_frame_ok(uint8_t *out, size_t cap, struct bf_bytes ref, uint32_t unread);
size_t bf_frame_error(uint8_t *out, size_t cap, const char *code, const char *message,
                      bool temporary, struct bf_bytes ref);
