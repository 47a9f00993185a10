/*
 * Client frames: see client_msg.h. The text is copied into the pool and parsed in situ there:
 * yyjson's strings then point into the copy, so the raw text of `ref` is found by offset. Numbers
 * are kept as text: `ref` is echoed as it came, and a sequence number is exact or refused, never
 * rounded.
 */
#include "session/client_msg.h"

#include <stdio.h>
#include <string.h>
#include <yyjson.h>

#include "belfry/base/err.h"
#include "belfry/base/plain_text.h"

/* An inbox id is a UUID; other ids are accepted up to this length, because they travel in a
 * receipt. */
#define ID_BYTES_MAX 64u
/* A store epoch: id and count in text. */
#define EPOCH_BYTES_MAX 128u

static const struct bf_bytes kind_names[BF_CM_KIND_COUNT] = {
    [BF_CM_CONNECT] = {"connect", 7}, [BF_CM_ACK] = {"ack", 3},         [BF_CM_READ] = {"read", 4},
    [BF_CM_SEEN] = {"seen", 4},       [BF_CM_ARCHIVE] = {"archive", 7}, [BF_CM_SUB] = {"sub", 3},
    [BF_CM_UNSUB] = {"unsub", 5},     [BF_CM_REFRESH] = {"refresh", 7}, [BF_CM_PING] = {"ping", 4},
};

static const struct bf_bytes lane_names[BF_LANE_COUNT] = {
    [BF_LANE_CRITICAL] = {"critical", 8},
    [BF_LANE_NORMAL] = {"normal", 6},
    [BF_LANE_BULK] = {"bulk", 4},
};

struct parse {
    struct bf_client_msg *msg;
    char *pool;
    char *copy; /* of the text, in the pool */
    size_t len;
    const char *code, *why;
};

/* ---- values ---- */

static bool refuse(struct parse *p, const char *code, const char *why)
{
    p->code = code;
    p->why = why;
    return false;
}

/* A member, with null taken as absent: many encoders write it for a field not set. */
static yyjson_val *member(yyjson_val *object, const char *name)
{
    yyjson_val *val = yyjson_obj_get(object, name);
    return yyjson_is_null(val) ? NULL : val;
}

static struct bf_bytes text_of(yyjson_val *val)
{
    return (struct bf_bytes){.at = yyjson_get_str(val), .len = yyjson_get_len(val)};
}

/* An optional string of 1 to |max| bytes. */
static bool take_text(struct parse *p, yyjson_val *val, size_t max, struct bf_bytes *ret,
                      const char *why)
{
    if (!val)
        return true;
    if (!yyjson_is_str(val) || yyjson_get_len(val) == 0 || yyjson_get_len(val) > max)
        return refuse(p, "bad_field", why);
    *ret = text_of(val);
    return true;
}

/* The same for a name that others will see: no control characters. */
static bool take_name(struct parse *p, yyjson_val *val, size_t max, struct bf_bytes *ret,
                      const char *why)
{
    if (!take_text(p, val, max, ret, why))
        return false;
    if (val && bf_text_has_control(ret->at, ret->len))
        return refuse(p, "bad_field", "a name holds a control character");
    return true;
}

/* An optional whole number, exact; UINT64_MAX is kept for "absent". */
static bool take_u64(struct parse *p, yyjson_val *val, uint64_t *ret, const char *why)
{
    if (!val)
        return true;
    const char *digits = yyjson_get_raw(val);
    size_t n = yyjson_get_len(val);
    uint64_t v = 0;
    if (!yyjson_is_raw(val) || n == 0)
        return refuse(p, "bad_field", why);
    for (size_t i = 0; i < n; i++) {
        uint64_t digit = (uint64_t)(uint8_t)digits[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, digit, &v))
            return refuse(p, "bad_field", why);
    }
    if (v == UINT64_MAX)
        return refuse(p, "bad_field", why);
    *ret = v;
    return true;
}

/* Raw text of a string or a number, copied to the place kept for it at the pool's start. */
static bool take_ref(struct parse *p, yyjson_val *val, const char *text)
{
    static const char why[] = "ref is not a string or a number of at most 64 bytes";
    size_t from, to;
    if (!val)
        return true;
    if (yyjson_is_raw(val)) {
        from = (size_t)(yyjson_get_raw(val) - p->copy);
        to = from + yyjson_get_len(val);
    } else if (yyjson_is_str(val)) {
        from = (size_t)(yyjson_get_str(val) - p->copy) - 1;
        for (to = from + 1; text[to] != '"'; to++)
            to += text[to] == '\\' ? 1 : 0;
        to++;
    } else {
        return refuse(p, "bad_field", why);
    }
    if (to - from > BF_REF_BYTES_MAX)
        return refuse(p, "bad_field", why);
    memcpy(p->pool, text + from, to - from);
    p->msg->ref = (struct bf_bytes){.at = p->pool, .len = to - from};
    return true;
}

/* ---- kinds ---- */

static bool take_topics(struct parse *p, yyjson_val *list)
{
    struct bf_client_msg *msg = p->msg;
    yyjson_arr_iter iter;
    yyjson_val *val;
    if (!list)
        return true;
    if (!yyjson_arr_iter_init(list, &iter) && !yyjson_is_arr(list))
        return refuse(p, "bad_field", "topics is not a list");
    if (yyjson_arr_size(list) > BF_CONN_TOPICS_MAX)
        return refuse(p, "too_many_topics", "a connection has at most 64 topics");
    while ((val = yyjson_arr_iter_next(&iter)) != NULL) {
        if (!take_name(p, val, BF_TOPIC_BYTES_MAX, &msg->topics[msg->topic_count],
                       "a topic is not a string of 1 to 128 bytes"))
            return false;
        msg->topic_count++;
    }
    return true;
}

static bool take_resume(struct parse *p, yyjson_val *resume)
{
    struct bf_client_msg *msg = p->msg;
    if (!resume)
        return true;
    if (!yyjson_is_obj(resume))
        return refuse(p, "bad_field", "resume is not an object");
    yyjson_val *lanes = member(resume, "lanes");
    yyjson_val *b = member(resume, "b");
    yyjson_val *seq = member(resume, "seq");
    yyjson_val *epoch = member(resume, "epoch");
    if (lanes && !yyjson_is_obj(lanes))
        return refuse(p, "bad_field", "resume.lanes is not an object");
    if (!seq || !epoch)
        return refuse(p, "bad_field", "resume needs epoch and seq");
    msg->has_resume = true;
    msg->has_resume_b = b != NULL;
    static const char why[] = "a sequence number of resume is not a whole number";
    /* an empty epoch is one that never was: answered resumed:false like any other */
    bool is_empty = yyjson_is_str(epoch) && yyjson_get_len(epoch) == 0;
    return (is_empty || take_text(p, epoch, EPOCH_BYTES_MAX, &msg->resume_epoch,
                                  "resume.epoch is not a string of up to 128 bytes")) &&
           take_u64(p, seq, &msg->resume_seq[BF_LANE_NORMAL], why) &&
           take_u64(p, member(lanes, "critical"), &msg->resume_seq[BF_LANE_CRITICAL], why) &&
           take_u64(p, member(lanes, "bulk"), &msg->resume_seq[BF_LANE_BULK], why) &&
           take_u64(p, b, &msg->resume_b, why);
}

static bool take_connect(struct parse *p, yyjson_val *root)
{
    struct bf_client_msg *msg = p->msg;
    return take_text(p, member(root, "token"), SIZE_MAX, &msg->token, "token is not a string") &&
           take_name(p, member(root, "device"), BF_DEVICE_BYTES_MAX, &msg->device,
                     "device is not a string of 1 to 64 bytes") &&
           take_resume(p, member(root, "resume")) && take_topics(p, member(root, "topics"));
}

static bool take_ack(struct parse *p, yyjson_val *root)
{
    struct bf_bytes lane = {0};
    yyjson_val *seq = member(root, "seq");
    if (!seq)
        return refuse(p, "bad_field", "ack needs seq");
    if (!take_u64(p, seq, &p->msg->seq, "seq is not a whole number") ||
        !take_text(p, member(root, "lane"), SIZE_MAX, &lane, "lane is not a string"))
        return false;
    if (lane.len == 0)
        return true;
    for (unsigned i = 0; i < BF_LANE_COUNT; i++) {
        if (bf_bytes_is_equal(lane, lane_names[i])) {
            p->msg->lane = (enum bf_lane)i;
            return true;
        }
    }
    return refuse(p, "bad_field", "lane is not critical, normal or bulk");
}

static bool take_required(struct parse *p, yyjson_val *val, size_t max, struct bf_bytes *ret,
                          const char *why)
{
    return val ? take_name(p, val, max, ret, why) : refuse(p, "bad_field", why);
}

static bool take_fields(struct parse *p, yyjson_val *root)
{
    struct bf_client_msg *msg = p->msg;
    switch (msg->kind) {
    case BF_CM_CONNECT:
        return take_connect(p, root);
    case BF_CM_ACK:
        return take_ack(p, root);
    case BF_CM_READ:
    case BF_CM_SEEN:
    case BF_CM_ARCHIVE:
        return take_required(p, member(root, "id"), ID_BYTES_MAX, &msg->id,
                             "id is not a string of 1 to 64 bytes");
    case BF_CM_SUB:
    case BF_CM_UNSUB:
        return take_required(p, member(root, "topic"), BF_TOPIC_BYTES_MAX, &msg->topic,
                             "topic is not a string of 1 to 128 bytes");
    case BF_CM_REFRESH:
        return take_required(p, member(root, "token"), SIZE_MAX, &msg->token,
                             "token is not a string");
    case BF_CM_PING:
        return true;
    case BF_CM_KIND_COUNT:
    default:
        return refuse(p, "unknown_type", "t is none of ours");
    }
}

static bool take_kind(struct parse *p, yyjson_val *root)
{
    yyjson_val *t = yyjson_obj_get(root, "t");
    for (unsigned i = 0; yyjson_is_str(t) && i < BF_CM_KIND_COUNT; i++) {
        if (bf_bytes_is_equal(text_of(t), kind_names[i])) {
            p->msg->kind = (enum bf_client_kind)i;
            return true;
        }
    }
    return refuse(p, "unknown_type", "t is missing or none of ours");
}

/* ---- public: in ---- */

int bf_client_msg_parse(void *pool, size_t pool_bytes, struct bf_bytes text,
                        struct bf_client_msg *ret, const char **ret_code, const char **ret_why)
{
    struct parse p = {.msg = ret, .pool = pool, .len = text.len};
    const size_t copied = BF_REF_BYTES_MAX + text.len + YYJSON_PADDING_SIZE;
    yyjson_alc alc;
    *ret = (struct bf_client_msg){.lane = BF_LANE_NORMAL};
    for (unsigned i = 0; i < BF_LANE_COUNT; i++)
        ret->resume_seq[i] = UINT64_MAX;
    *ret_code = "bad_json";
    *ret_why = "not a JSON object";
    /* pool: ref | copy of the text | yyjson's values */
    if (text.len == 0 || text.len > BF_CLIENT_FRAME_BYTES_MAX || copied > pool_bytes)
        return BF_ERR_MALFORMED;
    p.copy = p.pool + BF_REF_BYTES_MAX;
    memcpy(p.copy, text.at, text.len);
    memset(p.copy + text.len, 0, YYJSON_PADDING_SIZE);
    if (!yyjson_alc_pool_init(&alc, p.pool + copied, pool_bytes - copied))
        return BF_ERR_MALFORMED;
    const yyjson_read_flag flags = YYJSON_READ_INSITU | YYJSON_READ_NUMBER_AS_RAW;
    yyjson_doc *doc = yyjson_read_opts(p.copy, text.len, flags, &alc, NULL);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;
    if (!yyjson_is_obj(root))
        return BF_ERR_MALFORMED;
    if (!take_ref(&p, member(root, "ref"), text.at) || !take_kind(&p, root) ||
        !take_fields(&p, root)) {
        *ret_code = p.code;
        *ret_why = p.why;
        return BF_ERR_MALFORMED;
    }
    return 0; /* the document stays in the pool, which its next use overwrites */
}

/* ---- public: out ---- */

static void put_text(struct bf_writer *w, const char *text)
{
    bf_put_raw(w, text, strlen(text));
}

/* A JSON string of text that we wrote ourselves, hence UTF-8. */
static void put_quoted(struct bf_writer *w, const char *text)
{
    bf_put_u8(w, '"');
    for (const char *c = text; *c; c++) {
        char escaped[8];
        if (*c == '"' || *c == '\\') {
            bf_put_u8(w, '\\');
            bf_put_u8(w, (uint8_t)*c);
        } else if ((uint8_t)*c < 0x20) {
            snprintf(escaped, sizeof(escaped), "\\u%04x", (unsigned)(uint8_t)*c);
            bf_put_raw(w, escaped, 6);
        } else {
            bf_put_u8(w, (uint8_t)*c);
        }
    }
    bf_put_u8(w, '"');
}

static size_t finish(struct bf_writer *w, struct bf_bytes ref)
{
    if (ref.len > 0) {
        put_text(w, ",\"ref\":");
        bf_put_bytes(w, ref);
    }
    bf_put_u8(w, '}');
    return w->failed ? 0 : w->len;
}

size_t bf_msg_error(char *out, size_t cap, const char *code, const char *why, bool temporary,
                    struct bf_bytes ref)
{
    struct bf_writer w = {.buf = (uint8_t *)out, .cap = cap};
    put_text(&w, "{\"t\":\"error\",\"code\":");
    put_quoted(&w, code);
    put_text(&w, ",\"message\":");
    put_quoted(&w, why);
    put_text(&w, temporary ? ",\"temporary\":true" : ",\"temporary\":false");
    return finish(&w, ref);
}

size_t bf_msg_ok(char *out, size_t cap, struct bf_bytes ref)
{
    struct bf_writer w = {.buf = (uint8_t *)out, .cap = cap};
    put_text(&w, "{\"t\":\"ok\"");
    return finish(&w, ref);
}

size_t bf_msg_pong(char *out, size_t cap, struct bf_bytes ref)
{
    struct bf_writer w = {.buf = (uint8_t *)out, .cap = cap};
    put_text(&w, "{\"t\":\"pong\"");
    return finish(&w, ref);
}

size_t bf_msg_close(char *out, size_t cap, uint16_t code, const char *reason)
{
    struct bf_writer w = {.buf = (uint8_t *)out, .cap = cap};
    char number[16];
    int n = snprintf(number, sizeof(number), "%u", code);
    put_text(&w, "{\"t\":\"close\",\"code\":");
    bf_put_raw(&w, number, n > 0 ? (size_t)n : 0);
    put_text(&w, ",\"reason\":");
    put_quoted(&w, reason);
    return finish(&w, (struct bf_bytes){0});
}

size_t bf_msg_goaway(char *out, size_t cap, uint32_t reconnect_after_ms, const char *reason)
{
    struct bf_writer w = {.buf = (uint8_t *)out, .cap = cap};
    char number[16];
    int n = snprintf(number, sizeof(number), "%u", reconnect_after_ms);
    put_text(&w, "{\"t\":\"goaway\",\"reconnect_after_ms\":");
    bf_put_raw(&w, number, n > 0 ? (size_t)n : 0);
    put_text(&w, ",\"reason\":");
    put_quoted(&w, reason);
    return finish(&w, (struct bf_bytes){0});
}
