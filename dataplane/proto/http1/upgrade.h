/*
 * HTTP/1.1 upgrade request (RFC 9112, RFC 6455 section 4.2), small and strict. Bytes in, verdict
 * and bytes out; no I/O, no allocation. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "belfry/base/cursor.h"
#include "belfry/http1/head.h"
#include "proto/http1/extensions.h"

/* A whole request head. A browser with cookies and a 4 KiB token fits; more: 431. */
#define BF_UPGRADE_BYTES_MAX          8192u
#define BF_UPGRADE_HEADERS_MAX        BF_HTTP1_FIELDS_MAX
#define BF_UPGRADE_RESPONSE_BYTES_MAX 512u

struct bf_upgrade {
    struct bf_bytes path; /* without query */
    struct bf_bytes query;
    struct bf_bytes key;    /* Sec-WebSocket-Key */
    struct bf_bytes origin; /* empty when absent */
    struct bf_bytes bearer; /* token of Authorization: Bearer, or of sub-protocol bearer.<jwt> */
    struct bf_bytes host;
    struct bf_deflate_offer deflate; /* the first offer that can be met */
    struct bf_bytes last_event_id;   /* empty when absent */
    bool is_events;      /* the path is /v1/sse: server-sent events, nothing to upgrade */
    bool offers_v1_json; /* belfry.v1.json among Sec-WebSocket-Protocol */
    bool offers_other;   /* some sub-protocol, but none we speak */
    bool is_upgrade;     /* a WebSocket upgrade; else a plain request (405/404/426 follow) */
};

/*
 * Parses a request head from |buf|. Returns bytes consumed (> 0, through the blank line; what
 * follows belongs to the WebSocket), 0 when more bytes are needed, or the negated HTTP status that
 * answers the request (-400, -404 path is neither /v1/ws nor /v1/sse, -405, -414, -426 wrong
 * version, -431, -501, -505). Texts in *ret are borrowed from |buf|.
 */
int bf_upgrade_parse(const char *buf, size_t len, struct bf_upgrade *ret);

/* Writes the 101 (echoing belfry.v1.json only if offered; agreeing to compression if |deflate| and
 * it was offered). Returns its bytes. */
size_t bf_upgrade_accept(const struct bf_upgrade *up, bool deflate,
                         char out[BF_UPGRADE_RESPONSE_BYTES_MAX]);

/* Writes an error response (Connection: close, Sec-WebSocket-Version with 426, one line of text
 * that says why). Returns its bytes. */
size_t bf_upgrade_refuse(int status, const char *why, char out[BF_UPGRADE_RESPONSE_BYTES_MAX]);
