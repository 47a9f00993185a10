/* Proves the frames of belfry.v1.json that ctrlplane encodes: header, JSON, escaping, limits. */
#include <criterion/criterion.h>

#include <string.h>
#include <yyjson.h>

#include "publish/frames.h"

static const struct bf_id id = {{0x01, 2, 3, 4, 5, 6, 0x87, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}};

static yyjson_doc *payload_of(const uint8_t *frame, size_t len)
{
    cr_assert_eq(frame[0], 0x81);
    size_t header = frame[1] < 126 ? 2 : frame[1] == 126 ? 4 : 10;
    size_t payload = frame[1] < 126 ? frame[1] : (size_t)frame[2] << 8 | frame[3];
    cr_assert_eq(header + payload, len);
    yyjson_doc *doc = yyjson_read((const char *)frame + header, payload, 0);
    cr_assert_not_null(doc);
    return doc;
}

Test(frames, notification)
{
    uint8_t out[1024];
    struct bf_bytes fragment = BF_BYTES("\"type\":\"x\",\"title\":\"t\",\"ts\":5");
    size_t len =
        bf_frame_n(out, sizeof(out), BF_LANE_CRITICAL, 18446744073709551615u, &id, fragment);
    cr_assert_leq(len, bf_frame_n_max(fragment.len));
    yyjson_doc *doc = payload_of(out, len);
    yyjson_val *root = yyjson_doc_get_root(doc);
    cr_assert_str_eq(yyjson_get_str(yyjson_obj_get(root, "t")), "n");
    cr_assert_eq(yyjson_get_uint(yyjson_obj_get(root, "seq")), UINT64_MAX);
    cr_assert_str_eq(yyjson_get_str(yyjson_obj_get(root, "lane")), "critical");
    cr_assert_str_eq(yyjson_get_str(yyjson_obj_get(root, "id")),
                     "01020304-0506-8708-890a-0b0c0d0e0f10");
    yyjson_doc_free(doc);
    len = bf_frame_n(out, sizeof(out), BF_LANE_NORMAL, 0, &id, fragment);
    doc = payload_of(out, len);
    cr_assert_null(yyjson_obj_get(yyjson_doc_get_root(doc), "seq"), "transient has none");
    cr_assert_null(yyjson_obj_get(yyjson_doc_get_root(doc), "lane"), "normal goes without saying");
    yyjson_doc_free(doc);
}

Test(frames, header_of_every_size_class)
{
    static uint8_t out[70000];
    static char fragment[66000];
    memset(fragment, 'a', sizeof(fragment));
    memcpy(fragment, "\"x\":\"", 5);
    for (size_t n = 20; n < 65000; n += 1 + n / 7) {
        fragment[n - 1] = '"';
        struct bf_bytes f = {fragment, n};
        size_t len = bf_frame_b(out, sizeof(out), 7, &id, f);
        cr_assert_leq(len, bf_frame_n_max(n));
        yyjson_doc_free(payload_of(out, len));
        fragment[n - 1] = 'a';
    }
}

Test(frames, too_small_a_buffer_is_not_overrun)
{
    uint8_t out[64];
    memset(out, 0xee, sizeof(out));
    struct bf_bytes fragment = BF_BYTES("\"type\":\"0123456789012345678901234567890123456789\"");
    for (size_t cap = 0; cap < 40; cap++) {
        cr_assert_gt(bf_frame_n(out, cap, BF_LANE_BULK, 1, &id, fragment), cap);
        for (size_t i = cap; i < sizeof(out); i++)
            cr_assert_eq(out[i], 0xee, "cap %zu byte %zu", cap, i);
    }
}

Test(frames, welcome_escapes_the_user)
{
    uint8_t out[1024];
    struct bf_welcome w = {.worker = 3,
                           .conn = 0x500000007,
                           .user = BF_BYTES("a\"b\\c\n\xc3\xa9"),
                           .epoch = BF_BYTES("e-1"),
                           .head = {1, 2, 3},
                           .b = 9,
                           .resumed = true,
                           .unread = 4,
                           .ping_ms = 30000};
    yyjson_doc *doc = payload_of(out, bf_frame_welcome(out, sizeof(out), &w));
    yyjson_val *root = yyjson_doc_get_root(doc);
    cr_assert_str_eq(yyjson_get_str(yyjson_obj_get(root, "user")), "a\"b\\c\n\xc3\xa9");
    cr_assert_eq(yyjson_get_uint(yyjson_obj_get(root, "seq")), 2);
    cr_assert_eq(yyjson_get_uint(yyjson_obj_get(yyjson_obj_get(root, "lanes"), "bulk")), 3);
    cr_assert(yyjson_get_bool(yyjson_obj_get(root, "resumed")));
    cr_assert_null(yyjson_obj_get(root, "expires"));
    yyjson_doc_free(doc);
}

Test(frames, answers_echo_the_ref_as_it_came)
{
    uint8_t out[512];
    yyjson_doc *doc = payload_of(out, bf_frame_ok(out, sizeof(out), BF_BYTES("\"r-1\""), 2));
    cr_assert_str_eq(yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "ref")), "r-1");
    yyjson_doc_free(doc);
    doc = payload_of(out, bf_frame_error(out, sizeof(out), "not_found", "no such \"id\"", false,
                                         BF_BYTES("17")));
    cr_assert_eq(yyjson_get_uint(yyjson_obj_get(yyjson_doc_get_root(doc), "ref")), 17);
    cr_assert_not(yyjson_get_bool(yyjson_obj_get(yyjson_doc_get_root(doc), "temporary")));
    yyjson_doc_free(doc);
    doc = payload_of(out, bf_frame_state(out, sizeof(out), &id, "read", true, 0));
    cr_assert(yyjson_get_bool(yyjson_obj_get(yyjson_doc_get_root(doc), "read")));
    yyjson_doc_free(doc);
}
