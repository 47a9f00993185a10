/*
 * What a request for /v1/sse asks for: the same as a connect frame, from headers and query. Pure;
 * any thread.
 */
#pragma once

#include "proto/http1/sse.h"
#include "proto/http1/upgrade.h"
#include "session/client_msg.h"

/* A decoded token, device and list of topics. */
#define BF_SSE_TOKEN_BYTES_MAX  6144u
#define BF_SSE_TOPICS_BYTES_MAX 2048u

struct bf_sse_request {
    struct bf_bytes token; /* of Authorization, else of the query; empty: none */
    struct bf_sse_id resume;
    struct bf_client_msg msg; /* as if a connect frame had come; its texts are kept in here */
    char token_text[BF_SSE_TOKEN_BYTES_MAX];
    char device_text[BF_DEVICE_BYTES_MAX];
    char topics_text[BF_SSE_TOPICS_BYTES_MAX];
    char id_text[BF_SSE_ID_BYTES_MAX];
};

/* Returns 0, or -400 and *ret_why. A Last-Event-ID that is not ours is ignored: the client may have
 * it from another server. */
int bf_sse_request_read(const struct bf_upgrade *up, struct bf_sse_request *ret,
                        const char **ret_why);
