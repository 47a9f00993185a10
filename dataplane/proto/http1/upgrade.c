/*
 * Upgrade request parser: see upgrade.h. belfry/http1/head.h judges whether the bytes are a
 * request, as on the other ports; this file judges whether this port serves it. Nothing is kept
 * between calls (a head is at most 8 KiB and mostly arrives at once).
 */
#include "proto/http1/upgrade.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "belfry/http1/head.h"
#include "proto/http1/sha1.h"

#define PATH          "/v1/ws"
#define PATH_EVENTS   "/v1/sse"
#define SUBPROTOCOL   "belfry.v1.json"
#define BEARER_PREFIX "bearer."
/* RFC 6455 section 1.3: 16 random bytes in base64. */
#define KEY_CHARS 24u
#define KEY_GUID  "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

/* What the header lines have said so far. */
struct head {
    struct bf_upgrade *up;
    uint32_t seen; /* 1u << enum header */
    bool upgrade_websocket, connection_upgrade;
    bool offers_bearer, offers_unknown;
    bool is_version_13;
    struct bf_bytes offered_token;
};

enum header {
    H_UPGRADE = 0,
    H_CONNECTION,
    H_KEY,
    H_VERSION,
    H_PROTOCOL,
    H_EXTENSIONS,
    H_ORIGIN,
    H_AUTHORIZATION,
    H_LAST_EVENT_ID,
    H_COUNT
};

/* Headers whose repetition is refused; the others are lists and may span lines (RFC 9110 5.3). */
#define H_SINGLE                                                                                   \
    (1u << H_KEY | 1u << H_VERSION | 1u << H_ORIGIN | 1u << H_AUTHORIZATION | 1u << H_LAST_EVENT_ID)

static const struct bf_bytes header_names[H_COUNT] = {
    [H_UPGRADE] = {"upgrade", 7},
    [H_CONNECTION] = {"connection", 10},
    [H_KEY] = {"sec-websocket-key", 17},
    [H_VERSION] = {"sec-websocket-version", 21},
    [H_PROTOCOL] = {"sec-websocket-protocol", 22},
    [H_EXTENSIONS] = {"sec-websocket-extensions", 24},
    [H_ORIGIN] = {"origin", 6},
    [H_AUTHORIZATION] = {"authorization", 13},
    [H_LAST_EVENT_ID] = {"last-event-id", 13},
};

/* ---- header values ---- */

/* 22 digits and "==": 16 bytes. Left-over bits of the last digit are not checked. */
static bool is_key(struct bf_bytes v)
{
    if (v.len != KEY_CHARS || v.at[22] != '=' || v.at[23] != '=')
        return false;
    for (unsigned i = 0; i < 22; i++)
        if (!bf_http1_is_alnum(v.at[i]) && v.at[i] != '+' && v.at[i] != '/')
            return false;
    return true;
}

/* token68 of RFC 9110 11.2 covers any JWT. */
static bool is_token68(struct bf_bytes b)
{
    size_t n = b.len;
    while (n > 0 && b.at[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++)
        if (!bf_http1_is_alnum(b.at[i]) && (b.at[i] == '\0' || !strchr("-._~+/", b.at[i])))
            return false;
    return n > 0;
}

static int take_authorization(struct head *head, struct bf_bytes v)
{
    if (!bf_http1_has_prefix(v, BF_BYTES("bearer")))
        return 0; /* another scheme is not for us: the first frame may bring the token */
    v = bf_http1_skip(v, 6);
    if (v.len > 0 && v.at[0] != ' ')
        return 0; /* "Bearerish" */
    v = bf_http1_trim(v);
    if (!is_token68(v))
        return -400;
    head->up->bearer = v;
    return 0;
}

static int take_protocols(struct head *head, struct bf_bytes list)
{
    const size_t prefix = sizeof(BEARER_PREFIX) - 1;
    struct bf_bytes element;
    while (bf_http1_list_next(&list, &element)) {
        if (!bf_http1_is_token(element))
            return -400;
        if (bf_bytes_is_equal(element, BF_BYTES(SUBPROTOCOL))) {
            head->up->offers_v1_json = true;
        } else if (element.len >= prefix && memcmp(element.at, BEARER_PREFIX, prefix) == 0) {
            if (head->offers_bearer || element.len == prefix)
                return -400;
            head->offers_bearer = true;
            head->offered_token = bf_http1_skip(element, prefix);
        } else {
            head->offers_unknown = true;
        }
    }
    return 0;
}

static int take_header(struct head *head, enum header which, struct bf_bytes v)
{
    struct bf_upgrade *up = head->up;
    switch (which) {
    case H_UPGRADE:
        head->upgrade_websocket |= bf_http1_list_has(v, BF_BYTES("websocket"));
        return 0;
    case H_CONNECTION:
        head->connection_upgrade |= bf_http1_list_has(v, BF_BYTES("upgrade"));
        return 0;
    case H_KEY:
        up->key = v;
        return is_key(v) ? 0 : -400;
    case H_VERSION:
        head->is_version_13 = bf_bytes_is_equal(v, BF_BYTES("13"));
        return 0;
    case H_PROTOCOL:
        return take_protocols(head, v);
    case H_EXTENSIONS:
        return bf_extensions_take(v, &up->deflate);
    case H_ORIGIN:
        up->origin = v;
        return v.len > 0 ? 0 : -400;
    case H_AUTHORIZATION:
        return take_authorization(head, v);
    case H_LAST_EVENT_ID:
        up->last_event_id = v;
        return 0;
    case H_COUNT:
    default:
        return -400;
    }
}

static int take_field(struct head *head, struct bf_bytes name, struct bf_bytes value)
{
    for (unsigned i = 0; i < H_COUNT; i++) {
        if (!bf_http1_is_equal(name, header_names[i]))
            continue;
        if (head->seen & H_SINGLE & 1u << i)
            return -400;
        head->seen |= 1u << i;
        return take_header(head, (enum header)i, value);
    }
    return 0;
}

/* ---- the whole ---- */

/* What only the end of the head can tell. */
static int head_check(struct head *head)
{
    struct bf_upgrade *up = head->up;
    const struct bf_bytes offered = head->offered_token;
    if (head->offers_bearer && up->bearer.len > 0 && !bf_bytes_is_equal(up->bearer, offered))
        return -400; /* two different people: do not guess */
    if (head->offers_bearer)
        up->bearer = offered;
    up->offers_other = head->offers_unknown && !up->offers_v1_json;
    up->is_upgrade = head->upgrade_websocket && head->connection_upgrade && !up->is_events;
    if (!head->upgrade_websocket || up->is_events)
        return 0; /* a plain request, to be answered by the caller */
    if (!head->connection_upgrade || up->key.len == 0 || !(head->seen & 1u << H_VERSION))
        return -400;
    return head->is_version_13 ? 0 : -426;
}

/* A good request; is it one for this port? */
static int request_check(const struct bf_http1_head *request, struct bf_upgrade *up)
{
    up->path = request->path;
    up->query = request->query;
    up->host = request->host;
    up->is_events = bf_bytes_is_equal(up->path, BF_BYTES(PATH_EVENTS));
    if (request->minor == 0)
        return -505; /* 1.0 cannot upgrade (RFC 6455 4.2.1) */
    if (!up->is_events && !bf_bytes_is_equal(up->path, BF_BYTES(PATH)))
        return -404;
    if (!bf_bytes_is_equal(request->method, BF_BYTES("GET")))
        return -405;
    /* an upgrade has no body: what follows the head belongs to the WebSocket */
    return request->is_chunked || request->content_length > 0 ? -400 : 0;
}

int bf_upgrade_parse(const char *buf, size_t len, struct bf_upgrade *ret)
{
    static const struct bf_http1_limits limits = {.head_bytes = BF_UPGRADE_BYTES_MAX,
                                                  .line_bytes = BF_UPGRADE_BYTES_MAX};
    struct bf_upgrade up = {0};
    struct head head = {.up = &up};
    struct bf_http1_head request;
    int used = bf_http1_head_parse(buf, len, &limits, &request);
    if (used <= 0)
        return used;
    int rc = request_check(&request, &up);
    for (uint32_t i = 0; i < request.field_count && rc == 0; i++)
        rc = take_field(&head, bf_http1_field_name(buf, &request.fields[i]),
                        bf_http1_field_value(buf, &request.fields[i]));
    if (rc == 0)
        rc = head_check(&head);
    if (rc != 0)
        return rc;
    *ret = up;
    return used;
}

size_t bf_upgrade_accept(const struct bf_upgrade *up, bool deflate,
                         char out[BF_UPGRADE_RESPONSE_BYTES_MAX])
{
    char extensions[BF_EXTENSIONS_BYTES_MAX] = "";
    char text[KEY_CHARS + sizeof(KEY_GUID)];
    uint8_t digest[BF_SHA1_BYTES];
    char accept[BF_BASE64_BYTES(BF_SHA1_BYTES)];
    memcpy(text, up->key.at, KEY_CHARS);
    memcpy(text + KEY_CHARS, KEY_GUID, sizeof(KEY_GUID));
    bf_sha1(text, KEY_CHARS + sizeof(KEY_GUID) - 1, digest);
    size_t accept_len = bf_base64_write(digest, sizeof(digest), accept);
    if (deflate && up->deflate.is_offered)
        (void)bf_extensions_write(&up->deflate, extensions);
    int n = snprintf(out, BF_UPGRADE_RESPONSE_BYTES_MAX,
                     "HTTP/1.1 101 Switching Protocols\r\n"
                     "Upgrade: websocket\r\n"
                     "Connection: Upgrade\r\n"
                     "Sec-WebSocket-Accept: %.*s\r\n"
                     "%s%s\r\n",
                     (int)accept_len, accept, extensions,
                     up->offers_v1_json ? "Sec-WebSocket-Protocol: " SUBPROTOCOL "\r\n" : "");
    return n > 0 ? (size_t)n : 0;
}

/* Status line text, and the header that the status demands. */
static const char *status_text(int status, const char **ret_header)
{
    *ret_header = "";
    switch (status) {
    case 400:
        return "Bad Request";
    case 401:
        *ret_header = "WWW-Authenticate: Bearer\r\n";
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        *ret_header = "Allow: GET\r\n";
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 426:
        *ret_header = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        return "Upgrade Required";
    case 414:
        return "URI Too Long";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 501:
        return "Not Implemented";
    case 503:
        return "Service Unavailable";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Error";
    }
}

size_t bf_upgrade_refuse(int status, const char *why, char out[BF_UPGRADE_RESPONSE_BYTES_MAX])
{
    /* what the head leaves of the room; a longer reason is cut */
    const int why_bytes_max = 200;
    const char *header;
    const char *text = status_text(status, &header);
    int why_len = (int)strnlen(why, (size_t)why_bytes_max);
    int n = snprintf(out, BF_UPGRADE_RESPONSE_BYTES_MAX,
                     "HTTP/1.1 %d %s\r\n"
                     "%s%s"
                     "Content-Type: text/plain; charset=utf-8\r\n"
                     "Content-Length: %d\r\n"
                     "\r\n"
                     "%.*s\n",
                     status, text, header,
                     status == 426 ? "Connection: Upgrade, close\r\n" : "Connection: close\r\n",
                     why_len + 1, why_len, why);
    return n > 0 ? (size_t)n : 0;
}
