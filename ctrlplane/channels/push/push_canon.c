/* See push_canon.h. */
#include "channels/push/push_canon.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "belfry/base/base64url.h"

#define HTTPS_PORT 443u
/* A name of the domain name system (RFC 1035 section 2.3.4), as text. */
#define NAME_CHARS_MAX 253u

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct bf_bytes trim(struct bf_bytes text)
{
    while (text.len > 0 && is_blank(text.at[0])) {
        text.at++;
        text.len--;
    }
    while (text.len > 0 && is_blank(text.at[text.len - 1]))
        text.len--;
    return text;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* ---- APNs ---- */

static struct bf_bytes canon_hex(struct bf_bytes given, char *out)
{
    size_t len = 0;
    given = trim(given);
    if (given.len >= 2 && given.at[0] == '<' && given.at[given.len - 1] == '>')
        given = (struct bf_bytes){given.at + 1, given.len - 2};
    for (size_t i = 0; i < given.len; i++)
        if (!is_blank(given.at[i]))
            out[len++] = lower(given.at[i]);
    return (struct bf_bytes){out, len};
}

/* ---- hosts ---- */

/* A number in C's three notations, as resolvers and browsers read a part of an IPv4 address. */
static bool read_number(const char *at, size_t len, uint64_t *ret)
{
    unsigned base = 10;
    uint64_t value = 0;
    if (len >= 2 && at[0] == '0' && at[1] == 'x') {
        base = 16;
        at += 2;
        len -= 2;
    } else if (len >= 2 && at[0] == '0') {
        base = 8;
    }
    for (size_t i = 0; i < len; i++) {
        int digit = bf_hex_digit(at[i]);
        if (digit < 0 || (unsigned)digit >= base || value > UINT32_MAX)
            return false;
        value = value * base + (unsigned)digit;
    }
    *ret = value;
    return len > 0 || base == 16;
}

/* Whether the last part is a number: then all of it is an address or nothing (URL standard, 3.5).
 */
static bool ends_in_number(const char *text)
{
    const char *dot = strrchr(text, '.');
    const char *last = dot ? dot + 1 : text;
    uint64_t value;
    size_t len = strlen(last);
    return len > 0 && (strspn(last, "0123456789") == len || read_number(last, len, &value)) &&
           last[0] >= '0' && last[0] <= '9';
}

/* One to four parts; the last one fills what is left. */
static bool read_v4(const char *text, uint8_t out[4])
{
    uint64_t parts[4], value = 0;
    size_t count = 0;
    for (const char *at = text;; at++) {
        const char *dot = strchr(at, '.');
        size_t len = dot ? (size_t)(dot - at) : strlen(at);
        if (count == 4 || !read_number(at, len, &parts[count]))
            return false;
        count++;
        if (!dot)
            break;
        at = dot;
    }
    for (size_t i = 0; i + 1 < count; i++) {
        if (parts[i] > UINT8_MAX)
            return false;
        value |= parts[i] << (8 * (3 - i));
    }
    if (parts[count - 1] >> (8 * (5 - count)) != 0)
        return false;
    value |= parts[count - 1];
    for (size_t i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * (3 - i)));
    return true;
}

static bool is_name(const char *text)
{
    size_t label = 0, len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (c == '.' ? label == 0 : !is_plain)
            return false;
        label = c == '.' ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return label > 0 && len <= NAME_CHARS_MAX;
}

static int escape_at(struct bf_bytes text, size_t at)
{
    int hi = at + 2 < text.len ? bf_hex_digit(text.at[at + 1]) : -1;
    int lo = hi >= 0 ? bf_hex_digit(text.at[at + 2]) : -1;
    return lo < 0 ? -1 : hi << 4 | lo;
}

/* The host with its escapes undone, in lower case. */
static bool read_host_text(struct bf_bytes given, char out[BF_HOST_TEXT_MAX])
{
    size_t len = 0;
    for (size_t i = 0; i < given.len; i++) {
        int escaped = given.at[i] == '%' ? escape_at(given, i) : -1;
        char c = escaped >= 0 ? (char)escaped : given.at[i];
        i += escaped >= 0 ? 2 : 0;
        if (c <= ' ' || c > '~' || len + 1 >= BF_HOST_TEXT_MAX)
            return false;
        out[len++] = lower(c);
    }
    if (len > 1 && out[len - 1] == '.')
        len--;
    out[len] = '\0';
    return len > 0;
}

enum bf_host_kind bf_host_read(struct bf_bytes given, struct bf_host *ret)
{
    *ret = (struct bf_host){.kind = BF_HOST_BAD};
    bool is_v6 = given.len > 2 && given.at[0] == '[' && given.at[given.len - 1] == ']';
    if (is_v6)
        given = (struct bf_bytes){given.at + 1, given.len - 2};
    if (!read_host_text(given, ret->text))
        return BF_HOST_BAD;
    if (is_v6) {
        if (inet_pton(AF_INET6, ret->text, ret->address) == 1 &&
            inet_ntop(AF_INET6, ret->address, ret->text, sizeof(ret->text)))
            ret->kind = BF_HOST_V6;
    } else if (ends_in_number(ret->text)) {
        if (read_v4(ret->text, ret->address) &&
            inet_ntop(AF_INET, ret->address, ret->text, sizeof(ret->text)))
            ret->kind = BF_HOST_V4;
    } else if (is_name(ret->text)) {
        ret->kind = BF_HOST_NAME;
    }
    return ret->kind;
}

/* ---- endpoints ---- */

/* Text being written; nothing is written beyond |cap|. */
struct text {
    char *at;
    size_t len, cap;
};

static void put_char(struct text *t, char c)
{
    if (t->len < t->cap)
        t->at[t->len++] = c;
}

static void put_text(struct text *t, const char *from)
{
    while (*from)
        put_char(t, *from++);
}

/* RFC 3986 section 2.3: an escape of one of these means the character itself. */
static bool is_unreserved(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

static void put_unescaped(struct text *t, struct bf_bytes from)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < from.len; i++) {
        int c = from.at[i] == '%' ? escape_at(from, i) : -1;
        if (c < 0) {
            put_char(t, from.at[i]);
            continue;
        }
        i += 2;
        if (is_unreserved(c)) {
            put_char(t, (char)c);
        } else {
            put_char(t, '%');
            put_char(t, digits[c >> 4]);
            put_char(t, digits[c & 15]);
        }
    }
}

static bool is_segment(const char *at, size_t len, const char *what)
{
    return len == strlen(what) && memcmp(at, what, len) == 0;
}

/* RFC 3986 section 5.2.4 on what begins at |from|, a path with its '/'. */
static void drop_dot_segments(struct text *t, size_t from)
{
    size_t out = from;
    for (size_t at = from; at < t->len;) {
        const char *next = memchr(t->at + at + 1, '/', t->len - at - 1);
        size_t end = next ? (size_t)(next - t->at) : t->len;
        const char *segment = t->at + at + 1;
        size_t len = end - at - 1;
        bool is_up = is_segment(segment, len, "..");
        bool is_here = is_segment(segment, len, ".");
        while (is_up && out > from && t->at[--out] != '/')
            ;
        if (!is_up && !is_here) {
            memmove(t->at + out, t->at + at, end - at);
            out += end - at;
        } else if (end == t->len) {
            t->at[out++] = '/'; /* the last segment names a directory */
        }
        at = end;
    }
    t->len = out;
}

static bool read_port(struct bf_bytes digits, unsigned *ret)
{
    unsigned port = 0;
    for (size_t i = 0; i < digits.len; i++) {
        if (digits.at[i] < '0' || digits.at[i] > '9' || port > UINT16_MAX)
            return false;
        port = port * 10 + (unsigned)(digits.at[i] - '0');
    }
    *ret = digits.len > 0 ? port : HTTPS_PORT;
    return *ret > 0 && *ret <= UINT16_MAX;
}

bool bf_authority_read(struct bf_bytes authority, struct bf_host *ret, unsigned *ret_port)
{
    size_t host_len = authority.len;
    const char *bracket = memchr(authority.at, ']', authority.len);
    size_t from = bracket ? (size_t)(bracket - authority.at) : 0;
    const char *colon =
        authority.len > from ? memchr(authority.at + from, ':', authority.len - from) : NULL;
    *ret_port = HTTPS_PORT;
    *ret = (struct bf_host){.kind = BF_HOST_BAD};
    if (colon) {
        host_len = (size_t)(colon - authority.at);
        if (!read_port((struct bf_bytes){colon + 1, authority.len - host_len - 1}, ret_port))
            return false;
    }
    return bf_host_read((struct bf_bytes){authority.at, host_len}, ret) != BF_HOST_BAD;
}

static bool put_authority(struct text *t, struct bf_bytes authority)
{
    struct bf_host host;
    unsigned port;
    char digits[12];
    if (!bf_authority_read(authority, &host, &port))
        return false;
    put_text(t, host.kind == BF_HOST_V6 ? "[" : "");
    put_text(t, host.text);
    put_text(t, host.kind == BF_HOST_V6 ? "]" : "");
    if (port != HTTPS_PORT) {
        snprintf(digits, sizeof(digits), ":%u", port);
        put_text(t, digits);
    }
    return true;
}

static size_t until(struct bf_bytes text, size_t from, const char *ends)
{
    while (from < text.len && !(text.at[from] && strchr(ends, text.at[from])))
        from++;
    return from;
}

/* False: not an https URL. */
static bool canon_endpoint(struct bf_bytes given, struct text *t)
{
    static const char scheme[] = "https://";
    const size_t begin = sizeof(scheme) - 1;
    given = trim(given);
    for (size_t i = 0; i < begin; i++)
        if (i >= given.len || lower(given.at[i]) != scheme[i])
            return false;
    put_text(t, scheme);
    size_t slash = until(given, begin, "/?#\\");
    if (slash == given.len || given.at[slash] != '/' ||
        !put_authority(t, (struct bf_bytes){given.at + begin, slash - begin}))
        return false;
    size_t path_end = until(given, slash, "?#"), end = until(given, path_end, "#");
    size_t path_at = t->len;
    put_unescaped(t, (struct bf_bytes){given.at + slash, path_end - slash});
    drop_dot_segments(t, path_at);
    put_unescaped(t, (struct bf_bytes){given.at + path_end, end - path_end});
    return true;
}

/* ---- keys ---- */

/* Either alphabet of base64, with padding or without, as base64url without. */
static struct bf_bytes canon_key(struct bf_bytes given, char out[BF_PUSH_KEY_GIVEN_MAX])
{
    uint8_t bytes[BF_PUSH_KEY_GIVEN_MAX];
    struct bf_bytes key = trim(given);
    if (key.len >= BF_PUSH_KEY_GIVEN_MAX)
        return given;
    while (key.len > 0 && key.at[key.len - 1] == '=')
        key.len--;
    for (size_t i = 0; i < key.len; i++)
        out[i] = key.at[i] == '+' ? '-' : key.at[i] == '/' ? '_' : key.at[i];
    long len = bf_base64url_decode((struct bf_bytes){out, key.len}, bytes, sizeof(bytes));
    if (len < 0)
        return given;
    return (struct bf_bytes){out, bf_base64url_encode(bytes, (size_t)len, out)};
}

void bf_push_target_canon(struct bf_push_target *target, struct bf_push_canon *room)
{
    struct text t = {.at = room->token, .cap = sizeof(room->token)};
    if (target->token.len > BF_PUSH_TOKEN_GIVEN_MAX)
        return;
    switch (target->kind) {
    case BF_PUSH_APNS:
        if (!target->is_broadcast)
            target->token = canon_hex(target->token, room->token);
        break;
    case BF_PUSH_WEBPUSH:
        if (canon_endpoint(target->token, &t) && t.len < t.cap)
            target->token = (struct bf_bytes){t.at, t.len};
        target->p256dh = canon_key(target->p256dh, room->p256dh);
        target->auth = canon_key(target->auth, room->auth);
        break;
    default:
        target->token = trim(target->token);
        break;
    }
}
