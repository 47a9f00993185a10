/* Snapshot content -> what sessions consult: limits, keys, public topics, origins. All or nothing.
 */
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "session/session.h"

/* The content of a snapshot, until all of it has been read. */
struct draft {
    struct bf_limits limits;
    bool has_limits;
    uint32_t public_count;
    uint32_t origin_count;
};

static int add_name(struct bf_name *names, uint32_t *count, uint32_t max, struct bf_bytes text)
{
    if (text.len == 0)
        return 0;
    if (*count == max || text.len > sizeof(names->text))
        return BF_ERR_TOO_LARGE;
    struct bf_name *name = &names[(*count)++];
    name->len = (uint8_t)text.len;
    memcpy(name->text, text.at, text.len);
    return 0;
}

static int read_limits(struct bf_bytes value, struct draft *draft)
{
    struct bf_reader r = {.buf = (const uint8_t *)value.at, .len = value.len};
#define X(name) draft->limits.name = bf_get_u32(&r);
    BF_SNAP_LIMIT_LIST(X)
#undef X
    draft->has_limits = true;
    return r.failed ? BF_ERR_MALFORMED : 0;
}

/* Of the whole process; each worker sets the same. */
static int read_log(struct bf_bytes value, bool is_check)
{
    char level[16] = "";
    char format[16] = "";
    struct bf_reader r = {.buf = (const uint8_t *)value.at, .len = value.len};
    struct bf_bytes level_text = bf_get_str16(&r);
    struct bf_bytes format_text = bf_get_str16(&r);
    if (r.failed || level_text.len >= sizeof(level) || format_text.len >= sizeof(format))
        return BF_ERR_MALFORMED;
    memcpy(level, level_text.at, level_text.len);
    memcpy(format, format_text.at, format_text.len);
    if (!is_check)
        bf_log_configure(level, format);
    return 0;
}

/* |s|: where lists go, or NULL to only check that all fits. */
static int read_record(struct bf_session *s, uint16_t tag, struct bf_bytes value,
                       struct draft *draft)
{
    static struct bf_name scratch[1];
    switch (tag) {
    case BF_SNAP_LIMITS:
        return read_limits(value, draft);
    case BF_SNAP_PUBLIC_TOPIC:
        if (s)
            return add_name(s->public_topics, &draft->public_count, BF_PUBLIC_TOPICS_MAX, value);
        return value.len > sizeof(scratch->text) || draft->public_count++ >= BF_PUBLIC_TOPICS_MAX
                   ? BF_ERR_TOO_LARGE
                   : 0;
    case BF_SNAP_ORIGIN:
        if (s)
            return add_name(s->origins, &draft->origin_count, BF_ORIGINS_MAX, value);
        return value.len > BF_ORIGIN_BYTES_MAX || draft->origin_count++ >= BF_ORIGINS_MAX
                   ? BF_ERR_TOO_LARGE
                   : 0;
    case BF_SNAP_LOG:
        return read_log(value, s == NULL);
    default:
        return 0; /* keys are read by tls/; unknown tags are a newer ctrlplane's */
    }
}

static int walk(struct bf_session *s, const uint8_t *content, size_t len, struct draft *draft)
{
    struct bf_reader r = {.buf = content, .len = len};
    while (r.at < r.len && !r.failed) {
        uint16_t tag = bf_get_u16(&r);
        if (tag == BF_SNAP_END)
            break;
        struct bf_bytes value = bf_get_str32(&r);
        int rc = r.failed ? BF_ERR_MALFORMED : read_record(s, tag, value, draft);
        if (rc != 0)
            return rc;
    }
    return r.failed ? BF_ERR_MALFORMED : 0;
}

static bool has_keys(const uint8_t *content, size_t len)
{
    struct bf_reader r = {.buf = content, .len = len};
    while (r.at < r.len && !r.failed) {
        uint16_t tag = bf_get_u16(&r);
        if (tag == BF_SNAP_END)
            break;
        (void)bf_get_str32(&r);
        if (tag == BF_SNAP_JWT_KEY)
            return true;
    }
    return false;
}

int bf_session_configure(struct bf_session *s, const uint8_t *content, size_t len)
{
    struct draft check = {0};
    struct draft draft = {0};
    struct bf_jwt_keys *keys = NULL;
    int rc = walk(NULL, content, len, &check);
    if (rc == 0 && has_keys(content, len))
        rc = bf_jwt_keys_create(content, len, &keys);
    if (rc != 0)
        return rc;
    rc = walk(s, content, len, &draft);
    BF_BUG_ON(rc != 0); /* the same walk has just passed */
    s->public_count = draft.public_count;
    s->origin_count = draft.origin_count;
    if (draft.has_limits)
        s->core->limits = draft.limits;
    bf_jwt_keys_destroy(s->keys);
    s->keys = keys;
    return 0;
}
