/* Small parts of the API: running keys, recent events, the answer buffer, scopes and new keys. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "api/auth.h"
#include "api/idem.h"
#include "api/recent.h"
#include "crypto/hash.h"
#include "json/out.h"

Test(idem, one_runner_a_key)
{
    struct bf_idem_set *set = bf_idem_set_create();
    struct bf_idem_mark a, b, c;
    cr_assert(bf_idem_begin(set, &a, BF_BYTES("key")));
    cr_assert_not(bf_idem_begin(set, &b, BF_BYTES("key")));
    cr_assert(bf_idem_begin(set, &c, BF_BYTES("other")));
    bf_idem_end(set, &a);
    cr_assert(bf_idem_begin(set, &b, BF_BYTES("key")));
    bf_idem_end(set, &c);
    bf_idem_end(set, &b);
    bf_idem_set_destroy(set);
    bf_idem_set_destroy(NULL);
}

Test(idem, many_keys_in_one_chain)
{
    struct bf_idem_set *set = bf_idem_set_create();
    struct bf_idem_mark *marks = calloc(5000, sizeof(*marks));
    for (unsigned i = 0; i < 5000; i++)
        cr_assert(bf_idem_begin(set, &marks[i], (struct bf_bytes){(char *)&i, sizeof(i)}));
    for (unsigned i = 0; i < 5000; i += 2)
        bf_idem_end(set, &marks[i]);
    for (unsigned i = 0; i < 5000; i++) {
        struct bf_idem_mark again;
        bool began = bf_idem_begin(set, &again, (struct bf_bytes){(char *)&i, sizeof(i)});
        cr_assert_eq(began, i % 2 == 0);
        if (began)
            bf_idem_end(set, &again);
    }
    free(marks);
    bf_idem_set_destroy(set);
}

Test(recent, knows_what_was_just_put)
{
    struct bf_recent *recent = bf_recent_create();
    struct bf_event_meta meta = {.accepted_ms = 5, .tenant = "t", .producer = "p"};
    struct bf_recent_row row;
    meta.event_id.bytes[0] = 9;
    cr_assert_not(bf_recent_get(recent, &meta.event_id, &row));
    bf_recent_put(recent, &meta);
    cr_assert(bf_recent_get(recent, &meta.event_id, &row));
    cr_assert_str_eq(row.tenant, "t");
    meta.event_id.bytes[15] = 1; /* the same slot, another event */
    cr_assert_not(bf_recent_get(recent, &meta.event_id, &row));
    bf_recent_put(recent, &meta);
    cr_assert(bf_recent_get(recent, &meta.event_id, &row));
    bf_recent_destroy(recent);
}

Test(out, builds_text_of_any_length)
{
    struct bf_out o = {0};
    size_t len;
    for (unsigned i = 0; i < 1000; i++)
        bf_out_print(&o, "%u,", i);
    bf_out_str(&o, BF_BYTES("\x01\x02\"\n"));
    bf_out_uint(&o, UINT64_MAX);
    bf_out_bool(&o, false);
    bf_out_time(&o, 0);
    char *text = bf_out_take(&o, &len);
    cr_assert_eq(strlen(text), len);
    const char *want = "998,999,\"\\u0001\\u0002\\\"\\n\"18446744073709551615false"
                       "\"1970-01-01T00:00:00.000Z\"";
    cr_assert_str_eq(text + len - strlen(want), want);
    free(text);
    text = bf_out_take(&o, &len);
    cr_assert_str_eq(text, "", "empty is a text too");
    free(text);
}

Test(auth, scopes)
{
    for (int i = 0; i < BF_SCOPE_COUNT; i++) {
        const char *name = bf_scope_name((enum bf_scope)i);
        cr_assert_eq(bf_scope_find((struct bf_bytes){name, strlen(name)}), i);
    }
    cr_assert_eq(bf_scope_find(BF_BYTES("root")), -1);
    cr_assert_eq(bf_scope_find(BF_BYTES("sen")), -1);
}

Test(auth, new_keys_differ_and_only_the_hash_is_kept)
{
    char a[BF_API_KEY_BYTES], b[BF_API_KEY_BYTES];
    struct bf_api_key_row row, other;
    uint8_t hash[BF_SHA256_BYTES];
    bf_auth_make_key("name", "acme", 3, 500, a, &row);
    bf_auth_make_key("", "", 1, 0, b, &other);
    cr_assert_str_neq(a, b);
    cr_assert_str_neq(row.id, other.id);
    cr_assert_eq(strlen(a), 52);
    cr_assert_eq(strncmp(a, "bfk_", 4), 0);
    bf_sha256((struct bf_bytes){a, strlen(a)}, hash);
    cr_assert_eq(memcmp(hash, row.hash, sizeof(hash)), 0);
    cr_assert_str_eq(row.tenant, "acme");
    cr_assert_eq(row.rate_per_min, 500);
}
