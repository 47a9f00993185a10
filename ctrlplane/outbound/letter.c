/* See letter.h. */
#include "outbound/letter.h"

#include <stdlib.h>
#include <string.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "ingest/event.h"
#include "json/json.h"

/* Of a number in text: 20 digits and a zero. */
#define NUMBER_BYTES 21u

static bool get_text(yyjson_val *root, const char *name, size_t max, struct bf_bytes *ret)
{
    yyjson_val *val = yyjson_obj_get(root, name);
    if (!yyjson_is_str(val) || yyjson_get_len(val) > max)
        return false;
    *ret = (struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)};
    return true;
}

static struct bf_bytes text_of(yyjson_val *note, const char *name)
{
    struct bf_bytes text = BF_BYTES("");
    (void)get_text(note, name, SIZE_MAX, &text);
    return text;
}

/* Numbers are read as texts, so that those of a notification stay as they were written. */
static bool get_number(yyjson_val *root, const char *name, uint64_t *ret)
{
    char text[NUMBER_BYTES] = "";
    yyjson_val *val = yyjson_obj_get(root, name);
    if (!yyjson_is_raw(val) || yyjson_get_len(val) >= sizeof(text))
        return false;
    memcpy(text, yyjson_get_raw(val), yyjson_get_len(val));
    *ret = strtoull(text, NULL, 10);
    return strspn(text, "0123456789") == strlen(text);
}

static bool get_lane(yyjson_val *root, enum bf_lane *ret)
{
    struct bf_bytes name;
    if (!get_text(root, "lane", 16, &name))
        return false;
    for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++) {
        const char *known = bf_lane_name((enum bf_lane)lane);
        if (bf_bytes_is_equal(name, (struct bf_bytes){known, strlen(known)})) {
            *ret = (enum bf_lane)lane;
            return true;
        }
    }
    return false;
}

static bool get_head(yyjson_val *root, struct bf_letter *letter)
{
    struct bf_bytes device = {0};
    uint64_t redrive = 0;
    bool is_good = get_text(root, "tenant", BF_TENANT_BYTES_MAX, &letter->tenant) &&
                   get_text(root, "user_id", BF_USER_ID_BYTES_MAX, &letter->user) &&
                   get_text(root, "device_id", BF_UUID_TEXT_BYTES, &device) &&
                   bf_id_parse(device.at, device.len, &letter->endpoint_id) &&
                   get_lane(root, &letter->lane) &&
                   get_number(root, "expires", &letter->expires_ms) &&
                   get_number(root, "redrive", &redrive) && redrive < UINT32_MAX;
    letter->redrive = (uint32_t)redrive;
    return is_good;
}

int bf_letter_read(struct bf_bytes body, struct bf_letter *ret)
{
    struct bf_letter letter = {0};
    letter.doc = yyjson_read(body.at ? body.at : "", body.len, YYJSON_READ_NUMBER_AS_RAW);
    yyjson_val *root = yyjson_doc_get_root(letter.doc);
    yyjson_val *note = yyjson_obj_get(root, "notification");
    yyjson_val *overrides = yyjson_obj_get(root, "overrides");
    size_t len = 0;
    int rc = 0;
    if (!get_head(root, &letter) || !yyjson_is_obj(note) || yyjson_obj_size(note) == 0 ||
        (overrides && !yyjson_is_obj(overrides)))
        rc = BF_ERR_CORRUPT;
    if (rc == 0 && !(letter.texts[0] = yyjson_val_write(note, 0, &len)))
        rc = BF_ERR_NO_MEMORY;
    if (rc == 0)
        letter.fragment = (struct bf_bytes){letter.texts[0] + 1, len - 2}; /* without its braces */
    if (rc == 0 && overrides && !(letter.texts[1] = yyjson_val_write(overrides, 0, &len)))
        rc = BF_ERR_NO_MEMORY;
    if (rc == 0 && overrides)
        letter.overrides = (struct bf_bytes){letter.texts[1], len};
    if (rc != 0) {
        bf_letter_close(&letter);
        return rc;
    }
    letter.title = text_of(note, "title");
    letter.type = text_of(note, "type");
    letter.category = text_of(note, "category");
    letter.topic = text_of(note, "topic");
    *ret = letter;
    return 0;
}

void bf_letter_close(struct bf_letter *letter)
{
    free(letter->texts[0]);
    free(letter->texts[1]);
    yyjson_doc_free(letter->doc);
    *letter = (struct bf_letter){0};
}

/* ---- writing ---- */

static void put_text(struct bf_writer *w, const char *key, struct bf_bytes value)
{
    bf_put_raw(w, key, strlen(key));
    bf_json_put_str(w, value);
}

static void put_number(struct bf_writer *w, const char *key, uint64_t value)
{
    bf_put_raw(w, key, strlen(key));
    bf_json_put_uint(w, value);
}

size_t bf_letter_write(const struct bf_leg_row *row, uint8_t *out, size_t cap)
{
    struct bf_writer w = {.buf = out, .cap = cap};
    char endpoint[BF_UUID_TEXT_BYTES];
    const char *lane = bf_lane_name(row->lane);
    bf_id_text(&row->endpoint_id, endpoint);
    put_text(&w, "{\"tenant\":", row->uid.tenant);
    put_text(&w, ",\"user_id\":", row->uid.user);
    put_text(&w, ",\"device_id\":", (struct bf_bytes){endpoint, sizeof(endpoint)});
    put_text(&w, ",\"lane\":", (struct bf_bytes){lane, strlen(lane)});
    put_number(&w, ",\"expires\":", row->expires_ms);
    put_number(&w, ",\"redrive\":", row->redrive);
    bf_put_bytes(&w, BF_BYTES(",\"notification\":{"));
    bf_put_bytes(&w, row->fragment);
    bf_put_u8(&w, '}');
    if (row->overrides.len > 0) {
        bf_put_bytes(&w, BF_BYTES(",\"overrides\":"));
        bf_put_bytes(&w, row->overrides);
    }
    bf_put_u8(&w, '}');
    BF_BUG_ON(w.failed);
    return w.len;
}

/* ---- to a shard ---- */

int bf_letter_carry(const struct bf_carried_letter *letter, uint8_t **ret_bytes, size_t *ret_len)
{
    size_t cap = 8 + 8 + 2 + letter->meta.len + 4 + letter->body.len;
    uint8_t *bytes = malloc(cap);
    if (!bytes)
        return BF_ERR_NO_MEMORY;
    struct bf_writer w = {.buf = bytes, .cap = cap};
    bf_put_u64(&w, letter->at_ms);
    bf_put_u64(&w, letter->tag);
    bf_put_str16(&w, letter->meta);
    bf_put_str32(&w, letter->body);
    *ret_bytes = bytes;
    *ret_len = w.len;
    return 0;
}

bool bf_letter_unpack(struct bf_bytes bytes, struct bf_carried_letter *ret)
{
    struct bf_reader r = {.buf = (const uint8_t *)bytes.at, .len = bytes.len};
    ret->at_ms = bf_get_u64(&r);
    ret->tag = bf_get_u64(&r);
    ret->meta = bf_get_str16(&r);
    ret->body = bf_get_str32(&r);
    return !r.failed;
}
