/*
 * Upgrade request parser: see upgrade.h. Lines are judged in order as they become complete, so any
 * cut of the same bytes gives "more" or the same verdict; nothing is kept between calls (a head is
 * at most 8 KiB and mostly arrives at once). Strict where leniency has been used to smuggle
 * requests: bare CR or LF, obs-fold, white space around names, two of a header that decides, a
 * body.
 */
#include "proto/http1/upgrade.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "proto/http1/http_text.h"
#include "proto/http1/sha1.h"

#define PATH          "/v1/ws"
#define PATH_EVENTS   "/v1/sse"
#define SUBPROTOCOL   "belfry.v1.json"
#define BEARER_PREFIX "bearer."
/* RFC 6455 section 1.3: 16 random bytes in base64. */
#define KEY_CHARS 24u
#define KEY_GUID  "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
/* A method longer than this is not one (the longest registered has 17 letters). */
#define METHOD_BYTES_MAX 32u

/* What the header lines have said so far. */
struct head {
    struct bf_upgrade *up;
    uint32_t seen; /* 1u << enum header */
    uint32_t header_count;
    bool upgrade_websocket, connection_upgrade;
    bool offers_bearer, offers_unknown;
    bool is_version_13;
    bool has_absolute_host; /* of an absolute-form target: it replaces Host */
    struct bf_bytes offered_token;
};

enum header {
    H_HOST = 0,
    H_UPGRADE,
    H_CONNECTION,
    H_KEY,
    H_VERSION,
    H_PROTOCOL,
    H_EXTENSIONS,
    H_ORIGIN,
    H_AUTHORIZATION,
    H_LAST_EVENT_ID,
    H_CONTENT_LENGTH,
    H_TRANSFER_ENCODING,
    H_COUNT
};

/* Headers whose repetition is refused; the others are lists and may span lines (RFC 9110 5.3). */
#define H_SINGLE                                                                                   \
    (1u << H_HOST | 1u << H_KEY | 1u << H_VERSION | 1u << H_ORIGIN | 1u << H_AUTHORIZATION |       \
     1u << H_LAST_EVENT_ID | 1u << H_CONTENT_LENGTH | 1u << H_TRANSFER_ENCODING)

static const struct bf_bytes header_names[H_COUNT] = {
    [H_HOST] = {"host", 4},
    [H_UPGRADE] = {"upgrade", 7},
    [H_CONNECTION] = {"connection", 10},
    [H_KEY] = {"sec-websocket-key", 17},
    [H_VERSION] = {"sec-websocket-version", 21},
    [H_PROTOCOL] = {"sec-websocket-protocol", 22},
    [H_EXTENSIONS] = {"sec-websocket-extensions", 24},
    [H_ORIGIN] = {"origin", 6},
    [H_AUTHORIZATION] = {"authorization", 13},
    [H_LAST_EVENT_ID] = {"last-event-id", 13},
    [H_CONTENT_LENGTH] = {"content-length", 14},
    [H_TRANSFER_ENCODING] = {"transfer-encoding", 17},
};

/* ---- characters ----------------------------------------------------------------------------- */

static bool is_token(struct bf_bytes b)
{
    for (size_t i = 0; i < b.len; i++)
        if (!bf_http_is_tchar(b.at[i]))
            return false;
    return b.len > 0;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* |small| is in lower case. */
static bool is_equal_nocase(struct bf_bytes b, struct bf_bytes small)
{
    if (b.len != small.len)
        return false;
    for (size_t i = 0; i < b.len; i++)
        if (lower(b.at[i]) != small.at[i])
            return false;
    return true;
}

static bool has_prefix_nocase(struct bf_bytes b, struct bf_bytes small)
{
    return b.len >= small.len &&
           is_equal_nocase((struct bf_bytes){.at = b.at, .len = small.len}, small);
}

static struct bf_bytes skip(struct bf_bytes b, size_t n)
{
    return (struct bf_bytes){.at = b.at + n, .len = b.len - n};
}

static struct bf_bytes trim(struct bf_bytes b)
{
    while (b.len > 0 && (b.at[0] == ' ' || b.at[0] == '\t'))
        b = skip(b, 1);
    while (b.len > 0 && (b.at[b.len - 1] == ' ' || b.at[b.len - 1] == '\t'))
        b.len--;
    return b;
}

/* Takes the next element of a comma separated list; false at its end. Empty elements are skipped.
 */
static bool list_next(struct bf_bytes *list, struct bf_bytes *ret_element)
{
    while (list->len > 0) {
        const char *comma = memchr(list->at, ',', list->len);
        size_t n = comma ? (size_t)(comma - list->at) : list->len;
        struct bf_bytes element = trim((struct bf_bytes){.at = list->at, .len = n});
        *list = skip(*list, comma ? n + 1 : n);
        if (element.len > 0) {
            *ret_element = element;
            return true;
        }
    }
    return false;
}

static bool list_has(struct bf_bytes list, struct bf_bytes small)
{
    struct bf_bytes element;
    while (list_next(&list, &element))
        if (is_equal_nocase(element, small))
            return true;
    return false;
}

/* ---- request line --------------------------------------------------------------------------- */

/* Host or host:port as RFC 3986 allows; enough to keep separators and user info out. */
static bool is_host(struct bf_bytes b)
{
    for (size_t i = 0; i < b.len; i++)
        if (!bf_http_is_alnum(b.at[i]) &&
            (b.at[i] == '\0' || !strchr("-._~!$&'()*+,;=:[]%", b.at[i])))
            return false;
    return b.len > 0;
}

/* Splits a target into path and query. RFC 9112 3.2.2: a server must take the absolute form too. */
static int target_parse(struct bf_bytes target, struct head *head)
{
    for (size_t i = 0; i < target.len; i++)
        if (target.at[i] <= ' ' || target.at[i] == 0x7f || target.at[i] == '#')
            return -400; /* char is signed: bytes above 0x7f are caught as negative */
    size_t scheme = has_prefix_nocase(target, BF_BYTES("http://"))    ? 7
                    : has_prefix_nocase(target, BF_BYTES("https://")) ? 8
                                                                      : 0;
    if (scheme > 0) {
        target = skip(target, scheme);
        size_t n = 0;
        while (n < target.len && target.at[n] != '/' && target.at[n] != '?')
            n++;
        head->up->host = (struct bf_bytes){.at = target.at, .len = n};
        head->has_absolute_host = true;
        if (!is_host(head->up->host))
            return -400;
        target = skip(target, n);
    }
    const char *mark = memchr(target.at, '?', target.len);
    size_t path_len = mark ? (size_t)(mark - target.at) : target.len;
    head->up->path = (struct bf_bytes){.at = target.at, .len = path_len};
    head->up->query = skip(target, mark ? path_len + 1 : path_len);
    return 0;
}

static int version_check(struct bf_bytes v)
{
    if (v.len != 8 || memcmp(v.at, "HTTP/", 5) != 0 || v.at[6] != '.')
        return -400;
    if (v.at[5] < '0' || v.at[5] > '9' || v.at[7] < '0' || v.at[7] > '9')
        return -400;
    /* 1.0 cannot upgrade (RFC 6455 4.2.1); a later 1.x must be taken as 1.1 (RFC 9110 2.5) */
    return v.at[5] == '1' && v.at[7] >= '1' ? 0 : -505;
}

static int request_line(struct bf_bytes line, struct head *head)
{
    const char *first = memchr(line.at, ' ', line.len);
    if (!first)
        return -400;
    struct bf_bytes method = {.at = line.at, .len = (size_t)(first - line.at)};
    struct bf_bytes rest = skip(line, method.len + 1);
    const char *second = memchr(rest.at, ' ', rest.len);
    if (!second || !is_token(method) || method.len > METHOD_BYTES_MAX)
        return -400;
    struct bf_bytes target = {.at = rest.at, .len = (size_t)(second - rest.at)};
    int rc = version_check(skip(rest, target.len + 1));
    if (rc == 0 && (target.len == 0 || target_parse(target, head) != 0))
        rc = -400;
    head->up->is_events = bf_bytes_is_equal(head->up->path, BF_BYTES(PATH_EVENTS));
    if (rc == 0 && !head->up->is_events && !bf_bytes_is_equal(head->up->path, BF_BYTES(PATH)))
        rc = -404;
    if (rc == 0 && !bf_bytes_is_equal(method, BF_BYTES("GET")))
        rc = -405;
    return rc;
}

/* ---- header values -------------------------------------------------------------------------- */

/* 22 digits and "==": 16 bytes. Left-over bits of the last digit are nobody's business here. */
static bool is_key(struct bf_bytes v)
{
    if (v.len != KEY_CHARS || v.at[22] != '=' || v.at[23] != '=')
        return false;
    for (unsigned i = 0; i < 22; i++)
        if (!bf_http_is_alnum(v.at[i]) && v.at[i] != '+' && v.at[i] != '/')
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
        if (!bf_http_is_alnum(b.at[i]) && (b.at[i] == '\0' || !strchr("-._~+/", b.at[i])))
            return false;
    return n > 0;
}

static int take_authorization(struct head *head, struct bf_bytes v)
{
    if (!has_prefix_nocase(v, BF_BYTES("bearer")))
        return 0; /* another scheme is not for us: the first frame may bring the token */
    v = skip(v, 6);
    if (v.len > 0 && v.at[0] != ' ')
        return 0; /* "Bearerish" */
    v = trim(v);
    if (!is_token68(v))
        return -400;
    head->up->bearer = v;
    return 0;
}

static int take_protocols(struct head *head, struct bf_bytes list)
{
    const size_t prefix = sizeof(BEARER_PREFIX) - 1;
    struct bf_bytes element;
    while (list_next(&list, &element)) {
        if (!is_token(element))
            return -400;
        if (bf_bytes_is_equal(element, BF_BYTES(SUBPROTOCOL))) {
            head->up->offers_v1_json = true;
        } else if (element.len >= prefix && memcmp(element.at, BEARER_PREFIX, prefix) == 0) {
            if (head->offers_bearer || element.len == prefix)
                return -400;
            head->offers_bearer = true;
            head->offered_token = skip(element, prefix);
        } else {
            head->offers_unknown = true;
        }
    }
    return 0;
}

/* An upgrade has no body: "Content-Length: 0" is harmless, anything else could hide a request. */
static int take_content_length(struct bf_bytes v)
{
    for (size_t i = 0; i < v.len; i++)
        if (v.at[i] != '0')
            return -400;
    return v.len > 0 ? 0 : -400;
}

static int take_header(struct head *head, enum header which, struct bf_bytes v)
{
    struct bf_upgrade *up = head->up;
    switch (which) {
    case H_HOST:
        if (!is_host(v))
            return -400;
        if (!head->has_absolute_host)
            up->host = v;
        return 0;
    case H_UPGRADE:
        head->upgrade_websocket |= list_has(v, BF_BYTES("websocket"));
        return 0;
    case H_CONNECTION:
        head->connection_upgrade |= list_has(v, BF_BYTES("upgrade"));
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
    case H_CONTENT_LENGTH:
        return take_content_length(v);
    case H_TRANSFER_ENCODING:
    case H_COUNT:
    default:
        return -400;
    }
}

static bool is_field_value(struct bf_bytes v)
{
    for (size_t i = 0; i < v.len; i++) {
        uint8_t c = (uint8_t)v.at[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static int header_line(struct bf_bytes line, struct head *head)
{
    if (++head->header_count > BF_UPGRADE_HEADERS_MAX)
        return -431;
    const char *colon = memchr(line.at, ':', line.len);
    if (!colon)
        return -400;
    struct bf_bytes name = {.at = line.at, .len = (size_t)(colon - line.at)};
    struct bf_bytes value = trim(skip(line, name.len + 1));
    /* is_token refuses obs-fold (leading space) and space before the colon */
    if (!is_token(name) || !is_field_value(value))
        return -400;
    for (unsigned i = 0; i < H_COUNT; i++) {
        if (!is_equal_nocase(name, header_names[i]))
            continue;
        if (head->seen & H_SINGLE & 1u << i)
            return -400;
        head->seen |= 1u << i;
        return take_header(head, (enum header)i, value);
    }
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* What only the end of the head can tell. */
static int head_check(struct head *head)
{
    struct bf_upgrade *up = head->up;
    const struct bf_bytes offered = head->offered_token;
    if (!(head->seen & 1u << H_HOST))
        return -400; /* RFC 9112 3.2: also with an absolute-form target */
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

/* Finds the next line, which must end in CRLF. Returns its bytes with CRLF, 0 for more, or -400. */
static int line_take(const char *buf, size_t len, struct bf_bytes *ret_line)
{
    for (size_t i = 0; i < len; i++) {
        if (buf[i] == '\n')
            return -400;
        if (buf[i] != '\r')
            continue;
        if (i + 1 == len)
            return 0;
        if (buf[i + 1] != '\n')
            return -400;
        *ret_line = (struct bf_bytes){.at = buf, .len = i};
        return (int)i + 2;
    }
    return 0;
}

int bf_upgrade_parse(const char *buf, size_t len, struct bf_upgrade *ret)
{
    struct bf_upgrade up = {0};
    struct head head = {.up = &up};
    size_t limit = len < BF_UPGRADE_BYTES_MAX ? len : BF_UPGRADE_BYTES_MAX;
    size_t at = 0;
    bool is_first = true;
    for (;;) {
        struct bf_bytes line = {0};
        int n = line_take(buf + at, limit - at, &line);
        if (n < 0)
            return n;
        if (n == 0)
            return limit == BF_UPGRADE_BYTES_MAX ? -431 : 0;
        at += (size_t)n;
        int rc = is_first        ? request_line(line, &head)
                 : line.len == 0 ? head_check(&head)
                                 : header_line(line, &head);
        if (rc != 0)
            return rc;
        if (!is_first && line.len == 0)
            break;
        is_first = false;
    }
    *ret = up;
    return (int)at;
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
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
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
