/* Route table look-up and path decoding; see http.h. Pure. */
#include <stdio.h>
#include <string.h>

#include "belfry/base/plain_text.h"
#include "belfry/base/utf8.h"
#include "http/http.h"

/* Next segment of a path ("/a/b"); false at its end. An empty segment is a segment. */
static bool next_segment(const char **path, struct bf_bytes *segment)
{
    if (**path != '/')
        return false;
    const char *start = *path + 1;
    size_t len = strcspn(start, "/");
    *segment = (struct bf_bytes){start, len};
    *path = start + len;
    return true;
}

static bool is_parameter(struct bf_bytes segment)
{
    return segment.len > 0 && segment.at[0] == '{';
}

static bool matches(const char *pattern, const char *path)
{
    struct bf_bytes want;
    struct bf_bytes have;
    for (;;) {
        bool more_want = next_segment(&pattern, &want);
        bool more_have = next_segment(&path, &have);
        if (!more_want || !more_have)
            return more_want == more_have && *path == '\0';
        if (is_parameter(want) ? have.len == 0 : !bf_bytes_is_equal(want, have))
            return false;
    }
}

const struct bf_route *bf_route_find(const struct bf_route *routes, unsigned count,
                                     const char *method, const char *path, char *allow,
                                     size_t allow_len)
{
    size_t used = 0;
    allow[0] = '\0';
    for (unsigned i = 0; i < count; i++) {
        if (!matches(routes[i].path, path))
            continue;
        if (strcmp(routes[i].method, method) == 0 || strcmp(routes[i].method, BF_ANY_METHOD) == 0)
            return &routes[i];
        int n =
            snprintf(allow + used, allow_len - used, "%s%s", used ? ", " : "", routes[i].method);
        if (n > 0 && (size_t)n < allow_len - used)
            used += (size_t)n;
    }
    if (used == 0 && count > 0 && strcmp(routes[count - 1].method, BF_ANY_METHOD) == 0)
        return &routes[count - 1];
    return NULL;
}

long bf_percent_decode(const char *text, size_t len, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 2 < len ? bf_hex_digit(text[i + 1]) : -1;
            int low = high >= 0 ? bf_hex_digit(text[i + 2]) : -1;
            if (low < 0)
                return -1;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (n == cap)
            return -1;
        out[n++] = c;
    }
    return (long)n;
}

static bool bad_segment(struct bf_request *r, const char *field, const char *detail)
{
    bf_answer_fail(r, 400, "bad-path", field, "%s in the path: %s", field, detail);
    return false;
}

/* Where a parameter goes, and how long it may be. */
static bool keep_text(struct bf_request *r, const char *field, struct bf_bytes text, size_t max,
                      struct bf_bytes *slot)
{
    if (text.len > max)
        return bad_segment(r, field, "longer than 128 bytes");
    /* what was made before such ids were refused can still be deleted */
    bool may_be_old = strcmp(r->route->method, "DELETE") == 0 && !memchr(text.at, 0, text.len);
    if (bf_text_has_control(text.at, text.len) && !may_be_old)
        return bad_segment(r, field, "holds a control character (U+0000 to U+001F, U+007F)");
    if (!bf_utf8_is_valid(text))
        return bad_segment(r, field, "not valid UTF-8");
    *slot = text;
    return true;
}

static bool keep_parameter(struct bf_request *r, struct bf_bytes name, struct bf_bytes text)
{
    if (bf_bytes_is_equal(name, BF_BYTES("{user}")))
        return keep_text(r, "user_id", text, BF_USER_ID_BYTES_MAX, &r->user);
    if (bf_bytes_is_equal(name, BF_BYTES("{name}")))
        return keep_text(r, "name", text, BF_TOPIC_BYTES_MAX, &r->name);
    if (bf_bytes_is_equal(name, BF_BYTES("{topic}"))) {
        if (memchr(text.at, '*', text.len))
            return bad_segment(r, "topic", "a topic's name holds no *");
        return keep_text(r, "topic", text, BF_TOPIC_BYTES_MAX, &r->topic);
    }
    if (bf_id_parse(text.at, text.len, &r->id))
        return true;
    bf_answer_fail(r, 404, "not-found", "id", "nothing has such an id; ids are UUIDs");
    return false;
}

bool bf_route_decode(struct bf_request *r, const char *path)
{
    const char *pattern = r->route->path;
    struct bf_bytes want;
    struct bf_bytes have;
    size_t used = 0;
    if (strcmp(r->route->method, BF_ANY_METHOD) == 0) {
        snprintf(r->path, sizeof(r->path), "%s", path);
        r->name = (struct bf_bytes){r->path, strlen(r->path)};
        return true;
    }
    while (next_segment(&pattern, &want) && next_segment(&path, &have)) {
        if (!is_parameter(want))
            continue;
        char *at = r->path + used;
        long n = bf_percent_decode(have.at, have.len, at, sizeof(r->path) - used);
        if (n < 0)
            return bad_segment(r, "path", "bad percent-encoding, or too long");
        used += (size_t)n;
        if (!keep_parameter(r, want, (struct bf_bytes){at, (size_t)n}))
            return false;
    }
    return true;
}
