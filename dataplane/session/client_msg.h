/*
 * Client frames of belfry.v1.json (DESIGN 5) as data: text in, one struct out. Pure; yyjson with a
 * fixed pool, no heap. One worker thread (the pool is the caller's).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/limits.h"

enum bf_client_kind {
    BF_CM_CONNECT = 0,
    BF_CM_ACK = 1,
    BF_CM_READ = 2,
    BF_CM_SEEN = 3,
    BF_CM_ARCHIVE = 4,
    BF_CM_SUB = 5,
    BF_CM_UNSUB = 6,
    BF_CM_REFRESH = 7,
    BF_CM_PING = 8,
    BF_CM_KIND_COUNT
};

struct bf_client_msg {
    enum bf_client_kind kind;
    struct bf_bytes ref; /* raw JSON text of a string or number, as it came; empty: none */
    struct bf_bytes token, device, id, topic; /* unescaped UTF-8, in the pool; empty: absent */
    enum bf_lane lane;                        /* ack */
    uint64_t seq;                             /* ack */
    bool has_resume, has_resume_b;
    struct bf_bytes resume_epoch;
    uint64_t resume_seq[BF_LANE_COUNT]; /* UINT64_MAX: lane absent */
    uint64_t resume_b;
    uint32_t topic_count; /* connect */
    struct bf_bytes topics[BF_CONN_TOPICS_MAX];
};

/* Memory one parse may take: yyjson's worst case for a frame at its limit, and strings. */
#define BF_CLIENT_MSG_POOL_BYTES (BF_CLIENT_FRAME_BYTES_MAX * 14u + 4096u)

/*
 * Returns 0, or BF_ERR_MALFORMED (not JSON, not an object, no known t, a field of the wrong type, a
 * limit passed): then *ret_code is the error code for the client ("bad_json", "unknown_type",
 * "bad_field", "too_many_topics"), *ret_why one line for a person, and ret->ref is set if it could
 * be read. Unknown fields are ignored. Texts are borrowed from |pool| until its next use.
 */
int bf_client_msg_parse(void *pool, size_t pool_bytes, struct bf_bytes text,
                        struct bf_client_msg *ret, const char **ret_code, const char **ret_why);

/* Answers built in the worker, as JSON text without a frame; return bytes, 0 if |cap| is too small.
 */
size_t bf_msg_error(char *out, size_t cap, const char *code, const char *why, bool temporary,
                    struct bf_bytes ref);
size_t bf_msg_ok(char *out, size_t cap, struct bf_bytes ref);
size_t bf_msg_pong(char *out, size_t cap, struct bf_bytes ref);
/* For event streams, which have no close frame. */
size_t bf_msg_close(char *out, size_t cap, uint16_t code, const char *reason);
size_t bf_msg_goaway(char *out, size_t cap, uint32_t reconnect_after_ms, const char *reason);
