/* Routes: which call a path means, which methods it has, and what its segments decode to. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "api/calls.h"

static const struct bf_route *find(const char *method, const char *path, char allow[96])
{
    unsigned count;
    const struct bf_route *routes = bf_api_routes(&count);
    return bf_route_find(routes, count, method, path, allow, 96);
}

static const struct {
    const char *method, *path;
    const char *pattern; /* NULL: none */
    const char *allow;   /* when none */
} rows[] = {
    {"POST", "/v1/notifications", "/v1/notifications", ""},
    {"DELETE", "/v1/notifications", NULL, "POST"},
    {"GET", "/v1/users/a", "/v1/users/{user}", ""},
    {"PUT", "/v1/users/a%2Fb", "/v1/users/{user}", ""},
    {"POST", "/v1/users/a", NULL, "PUT, GET, DELETE"},
    {"POST", "/v1/users/import", "/v1/users/import", ""},
    {"POST", "/v1/notifications/read-all", "/v1/notifications/read-all", ""},
    {"GET", "/v1/users/a/notifications", "/v1/users/{user}/notifications", ""},
    {"GET", "/v1/users/a/notifications/x", "/v1/users/{user}/notifications/{id}", ""},
    {"PUT", "/v1/topics/t/subscriptions/u", "/v1/topics/{topic}/subscriptions/{user}", ""},
    {"POST", "/v1/notifications/bulk", "/v1/notifications/bulk", ""},
    {"PATCH", "/v1/notifications/bulk", "/v1/notifications/bulk", ""},
    {"GET", "/", NULL, ""},
    {"GET", "", NULL, ""},
    {"GET", "/v1", NULL, ""},
    {"GET", "/v1/", NULL, ""},
    {"GET", "/v1/users/", NULL, ""},
    {"GET", "/v1/users//notifications", NULL, ""},
    {"GET", "/v1/users/a/", NULL, ""},
    {"GET", "/v1/users/a/b", NULL, ""},
    {"GET", "v1/topics", NULL, ""},
    {"get", "/v1/topics", NULL, "GET"},
    {"GET", "/v1/topics/t/subscriptions/u/x", NULL, ""},
};

Test(route, table)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char allow[96];
        const struct bf_route *route = find(rows[i].method, rows[i].path, allow);
        if (!rows[i].pattern && !rows[i].allow[0]) {
            /* the last row takes what no other has: 404, or 501 with a word on what will be there
             */
            cr_assert_str_eq(route->method, BF_ANY_METHOD, "%s %s", rows[i].method, rows[i].path);
            cr_assert_str_eq(route->path, "");
        } else if (!rows[i].pattern) {
            cr_assert_null(route, "%s %s", rows[i].method, rows[i].path);
            cr_assert_str_eq(allow, rows[i].allow, "%s %s", rows[i].method, rows[i].path);
        } else {
            cr_assert_not_null(route, "%s %s", rows[i].method, rows[i].path);
            cr_assert_str_eq(route->path, rows[i].pattern);
        }
    }
}

/* Decodes the path of a GET (or the method given) into a fresh request. */
static struct bf_request *decode(const char *method, const char *path, bool *ret_ok)
{
    char allow[96];
    struct bf_request *r = calloc(1, sizeof(*r));
    r->route = find(method, path, allow);
    cr_assert_not_null(r->route, "%s", path);
    *ret_ok = bf_route_decode(r, path);
    return r;
}

static void drop(struct bf_request *r)
{
    free(r->answer.body);
    free(r);
}

Test(route, segments_are_decoded)
{
    bool ok;
    struct bf_request *r = decode("PUT", "/v1/topics/a%20b/subscriptions/J%C3%BCrgen%2F2", &ok);
    cr_assert(ok);
    cr_assert(bf_bytes_is_equal(r->topic, BF_BYTES("a b")));
    cr_assert(bf_bytes_is_equal(r->user, BF_BYTES("J\xc3\xbcrgen/2")));
    drop(r);
    r = decode("GET", "/v1/notifications/0af76519-16cd-83dd-8448-eb211c80319c/status", &ok);
    cr_assert(ok);
    cr_assert_eq(r->id.bytes[1], 0xf7);
    drop(r);
}

static const struct {
    const char *method, *path;
    int status;
} bad[] = {
    {"GET", "/v1/users/%ff%fe", 400},
    {"GET", "/v1/users/a%00b", 400},
    {"GET", "/v1/users/a%0", 400},
    {"GET", "/v1/users/a%", 400},
    {"GET", "/v1/users/a%zz", 400},
    {"GET", "/v1/topics/a*", 400},
    {"GET", "/v1/topics/a%2a", 400},
    {"GET", "/v1/notifications/not-an-id/status", 404},
    {"GET", "/v1/notifications/0af7651916cd83dd8448eb211c80319c/status", 404},
};

Test(route, bad_segments)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bool ok;
        struct bf_request *r = decode(bad[i].method, bad[i].path, &ok);
        cr_assert_not(ok, "%s", bad[i].path);
        cr_assert_eq(r->answer.status, bad[i].status, "%s", bad[i].path);
        cr_assert_str_eq(r->answer.content_type, "application/problem+json");
        drop(r);
    }
}

Test(route, longest_id)
{
    char path[700] = "/v1/users/";
    bool ok;
    for (unsigned i = 0; i < 128; i++)
        strcat(path, "%41");
    struct bf_request *r = decode("GET", path, &ok);
    cr_assert(ok);
    cr_assert_eq(r->user.len, 128);
    drop(r);
    strcat(path, "x");
    r = decode("GET", path, &ok);
    cr_assert_not(ok);
    cr_assert_eq(r->answer.status, 400);
    drop(r);
}

Test(route, percent)
{
    char out[8];
    cr_assert_eq(bf_percent_decode("a%41%2F", 7, out, sizeof(out)), 3);
    cr_assert_eq(memcmp(out, "aA/", 3), 0);
    cr_assert_eq(bf_percent_decode("%4", 2, out, sizeof(out)), -1);
    cr_assert_eq(bf_percent_decode("%G1", 3, out, sizeof(out)), -1);
    cr_assert_eq(bf_percent_decode("123456789", 9, out, sizeof(out)), -1, "does not fit");
}
