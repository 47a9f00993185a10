/* See near.h. */
#include "ingest/near.h"

#include <stdio.h>
#include <string.h>

#include "ingest/event.h"
#include "ingest/fields.h"

/* Longer names are not compared, because no name of ours is that long. */
#define NAME_MAX_BYTES 40u

struct alias {
    const char *given, *meant;
};

/* What other notification APIs call what we have. Compared without case, '_' and '-'. */
static const struct alias fields[] = {
    {"templatevars", "data"},
    {"templatedata", "data"},
    {"templatevariables", "data"},
    {"variables", "data"},
    {"vars", "data"},
    {"payload", "data"},
    {"params", "data"},
    {"metadata", "data"},
    {"customdata", "data"},
    {"recipientids", "recipients"},
    {"userids", "recipients"},
    {"users", "recipients"},
    {"to", "recipients"},
    {"targets", "recipients"},
    {"recipient", "user_id"},
    {"recipientid", "user_id"},
    {"uid", "user_id"},
    {"segmentid", "segment"},
    {"audience", "segment"},
    {"template", "template_id"},
    {"message", "body"},
    {"text", "body"},
    {"content", "body"},
    {"subject", "title"},
    {"heading", "title"},
    {"url", "action_url"},
    {"link", "action_url"},
    {"deeplink", "action_url"},
    {"clickaction", "action_url"},
    {"buttons", "actions"},
    {"expiry", "expires_at"},
    {"expires", "expires_at"},
    {"expiration", "expires_at"},
    {"timetolive", "ttl"},
    {"sendat", "scheduled_at"},
    {"scheduledfor", "scheduled_at"},
    {"scheduleat", "scheduled_at"},
    {"channel", "channels"},
    {"severity", "priority"},
    {"urgency", "priority"},
    {"tag", "collapse_key"},
    {"collapseid", "collapse_key"},
    {"dedupkey", "dedup_key"},
    {"deduplicationid", "dedup_key"},
    {"eventtype", "type"},
    {"notificationtype", "type"},
    {"kind", "type"},
    {"all", "broadcast"},
    {"inapp", "channels"},
};

static const struct alias channels[] = {
    {"inapp", "inapp"},  {"websocket", "inapp"}, {"web", "inapp"},  {"inbox", "inapp"},
    {"mobile", "push"},  {"apns", "push"},       {"fcm", "push"},   {"webpush", "push"},
    {"ios", "push"},     {"android", "push"},    {"mail", "email"}, {"text", "sms"},
    {"http", "webhook"}, {"hook", "webhook"},
};

/* Lower case, without what words are parted by. */
static size_t simplify(struct bf_bytes given, char out[NAME_MAX_BYTES])
{
    size_t len = 0;
    for (size_t i = 0; i < given.len && len + 1 < NAME_MAX_BYTES; i++) {
        char c = given.at[i];
        if (c == '_' || c == '-' || c == ' ' || c == '.')
            continue;
        out[len++] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    out[len] = '\0';
    return len;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Letters to insert, delete, replace or swap with their neighbour. */
static unsigned distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned rows[3][NAME_MAX_BYTES];
    for (unsigned k = 0; k <= b_len; k++)
        rows[0][k] = k;
    for (unsigned i = 1; i <= a_len; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        row[0] = i;
        for (unsigned k = 1; k <= b_len; k++) {
            row[k] = least(least(above[k], row[k - 1]) + 1, above[k - 1] + (a[i - 1] != b[k - 1]));
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1])
                row[k] = least(row[k], before[k - 2] + 1);
        }
    }
    return rows[a_len % 3][b_len];
}

const char *bf_near_name(struct bf_bytes given, const char *const *names, size_t count)
{
    char simple[NAME_MAX_BYTES], other[NAME_MAX_BYTES];
    size_t len = simplify(given, simple);
    const char *best = NULL;
    unsigned best_far = len < 4 ? 1 : len < 8 ? 2 : 3; /* a third of its letters at most */
    for (size_t i = 0; i < count && len > 0; i++) {
        if (!names[i])
            continue;
        size_t n = simplify((struct bf_bytes){names[i], strlen(names[i])}, other);
        unsigned far = distance(simple, len, other, n);
        if (far < best_far) {
            best = names[i];
            best_far = far;
        }
    }
    return best;
}

/* An alias by its exact word, else the nearest of |names|. */
static const char *near_of(struct bf_bytes given, const struct alias *aliases, size_t alias_count,
                           const char *const *names, size_t count)
{
    char simple[NAME_MAX_BYTES];
    simplify(given, simple);
    for (size_t i = 0; i < alias_count; i++)
        if (strcmp(aliases[i].given, simple) == 0)
            return aliases[i].meant;
    return bf_near_name(given, names, count);
}

const char *bf_near_field(struct bf_bytes given)
{
    const char *names[BF_F_COUNT];
    for (size_t i = 0; i < BF_F_COUNT; i++)
        names[i] = bf_field_rows[i].name;
    return near_of(given, fields, sizeof(fields) / sizeof(fields[0]), names, BF_F_COUNT);
}

const char *bf_near_channel(struct bf_bytes given)
{
    const char *names[BF_CHANNEL_COUNT];
    for (size_t i = 0; i < BF_CHANNEL_COUNT; i++)
        names[i] = bf_channel_name((enum bf_channel)i);
    return near_of(given, channels, sizeof(channels) / sizeof(channels[0]), names,
                   BF_CHANNEL_COUNT);
}

/* ---- paths ---- */

/* Takes the next segment off |path|. False: there is none left. */
static bool next_segment(const char **path, struct bf_bytes *ret)
{
    while (**path == '/')
        (*path)++;
    ret->at = *path;
    ret->len = strcspn(*path, "/?#");
    *path += ret->len;
    return ret->len > 0;
}

/* Whether |given| is nearly |pattern|: as many segments, each the same, a parameter, or one slip
 * away. Writes it as it should be. */
static bool is_near_pattern(const char *given, const char *pattern, char *out, size_t cap)
{
    struct bf_bytes have, want;
    size_t len = 0;
    for (;;) {
        bool more_have = next_segment(&given, &have), more_want = next_segment(&pattern, &want);
        if (!more_have || !more_want)
            return more_have == more_want && len > 0;
        bool is_parameter = want.at[0] == '{';
        char name[NAME_MAX_BYTES];
        snprintf(name, sizeof(name), "%.*s", (int)want.len, want.at);
        const char *const names[] = {name};
        if (!is_parameter && !bf_near_name(have, names, 1))
            return false;
        struct bf_bytes put = is_parameter ? have : want;
        int n = snprintf(out + len, cap - len, "/%.*s", (int)put.len, put.at);
        if (n < 0 || (size_t)n >= cap - len)
            return false;
        len += (size_t)n;
    }
}

/* Without "/api", and from the version on: "/api/v1/users" and "/users" are /v1/users. */
static const char *from_version(const char *given)
{
    const char *at = strstr(given, "/v1/");
    return at ? at + 3 : strncmp(given, "/api/", 5) == 0 ? given + 4 : given;
}

bool bf_near_path(const char *given, const char *const *paths, size_t count, char *out, size_t cap)
{
    char whole[512];
    int n = snprintf(whole, sizeof(whole), "/v1%s", from_version(given));
    if (n < 0 || (size_t)n >= sizeof(whole))
        return false;
    for (size_t i = 0; i < count; i++)
        if (is_near_pattern(whole, paths[i], out, cap))
            return true;
    return false;
}
