/* See push_letter.h. */
#include "channels/push/push_letter.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "ingest/event.h"

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

/* Numbers are read as texts, so that those of a notification come back as they were. */
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

static bool get_head(yyjson_val *root, struct bf_push_letter *letter)
{
    struct bf_bytes device = {0};
    uint64_t redrive = 0;
    bool is_good = get_text(root, "tenant", BF_TENANT_BYTES_MAX, &letter->tenant) &&
                   get_text(root, "user_id", BF_USER_ID_BYTES_MAX, &letter->user) &&
                   get_text(root, "device_id", BF_UUID_TEXT_BYTES, &device) &&
                   bf_id_parse(device.at, device.len, &letter->device_id) &&
                   get_lane(root, &letter->lane) &&
                   get_number(root, "expires", &letter->expires_ms) &&
                   get_number(root, "redrive", &redrive) && redrive < UINT32_MAX;
    letter->redrive = (uint32_t)redrive;
    return is_good;
}

int bf_push_letter_read(struct bf_bytes body, struct bf_push_letter *ret)
{
    struct bf_push_letter letter = {0};
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
        bf_push_letter_close(&letter);
        return rc;
    }
    letter.title = text_of(note, "title");
    letter.type = text_of(note, "type");
    letter.category = text_of(note, "category");
    letter.topic = text_of(note, "topic");
    *ret = letter;
    return 0;
}

void bf_push_letter_close(struct bf_push_letter *letter)
{
    free(letter->texts[0]);
    free(letter->texts[1]);
    yyjson_doc_free(letter->doc);
    *letter = (struct bf_push_letter){0};
}
