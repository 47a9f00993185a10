/* Users over the API (ING-11): profile, erasure, bulk import as NDJSON. Profiles are checked here
 * and kept as JSON; the core owns the user. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/calls.h"
#include "belfry/base/err.h"
#include "belfry/base/plain_text.h"
#include "belfry/base/utf8.h"

/* attributes, compact: what a segment may look at, not a document store. */
#define ATTRIBUTES_BYTES_MAX (8u * 1024u)
/* Imports at once: each is a thread that keeps a shard busy. */
#define IMPORTS_MAX 2u
/* Lines of one import whose failure is told; all are counted. */
#define IMPORT_ERRORS_MAX 100u
#define IMPORT_LINES_MAX  10000u

struct profile_rule {
    const char *name;
    uint32_t bytes_max; /* 0: an object */
};

static const struct profile_rule rules[] = {
    {"locale", 35}, {"zone", 64},      {"email", 254},
    {"phone", 32},  {"attributes", 0}, {"tenant", BF_TENANT_BYTES_MAX},
};
#define RULES (sizeof(rules) / sizeof(rules[0]))

/* ---- profile ---- */

static int refuse(struct bf_problem *problem, const char *type, const char *field,
                  const char *detail)
{
    bf_problem_set(problem, 400, type, field, "%s: %s", field, detail);
    return BF_ERR_MALFORMED;
}

static bool is_email(const char *text)
{
    const char *at = strchr(text, '@');
    return at && at != text && at[1] != '\0' && !strchr(at + 1, '@') && !strpbrk(text, " \t\r\n");
}

/* E.164: a plus and up to 15 digits. */
static bool is_phone(const char *text)
{
    size_t digits = strspn(text[0] == '+' ? text + 1 : text, "0123456789");
    return text[0] == '+' && digits >= 5 && digits <= 15 && text[1 + digits] == '\0';
}

#define ZONE_DIR "/usr/share/zoneinfo"

/* Area/City, as IANA names are spelled, and a file of the system's tz database (RFC 8536): a zone
 * that does not exist would be UTC without a word. A system without the database cannot tell. */
static bool is_zone(const char *text)
{
    char path[sizeof(ZONE_DIR) + 66];
    char magic[4] = "";
    bool is_name =
        text[0] != '/' && text[0] != '\0' && !strstr(text, "..") && !strstr(text, "//") &&
        strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/_+-") ==
            strlen(text);
    int n = snprintf(path, sizeof(path), "%s/%s", ZONE_DIR, text);
    if (!is_name || n < 0 || (size_t)n >= sizeof(path) || strncmp(text, "posix/", 6) == 0 ||
        strncmp(text, "right/", 6) == 0)
        return false;
    FILE *file = fopen(path, "re");
    if (!file)
        return access(ZONE_DIR "/UTC", R_OK) != 0;
    bool is_tzif = fread(magic, 1, sizeof(magic), file) == sizeof(magic) &&
                   memcmp(magic, "TZif", sizeof(magic)) == 0;
    fclose(file);
    return is_tzif;
}

static int check_attributes(yyjson_val *val, struct bf_problem *problem)
{
    size_t len = 0;
    if (!yyjson_is_obj(val))
        return refuse(problem, "wrong-type", "attributes", "must be an object");
    char *text = yyjson_val_write(val, 0, &len);
    free(text);
    if (!text || len > ATTRIBUTES_BYTES_MAX)
        return refuse(problem, "too-long", "attributes", "at most 8192 bytes of JSON");
    return 0;
}

static int check_text(const struct profile_rule *rule, yyjson_val *val, struct bf_bytes tenant,
                      struct bf_problem *problem)
{
    const char *text = yyjson_get_str(val);
    size_t len = yyjson_get_len(val);
    if (!text || strlen(text) != len)
        return refuse(problem, "wrong-type", rule->name, "must be a string");
    if (len > rule->bytes_max)
        return refuse(problem, "too-long", rule->name, "is too long");
    if (strcmp(rule->name, "email") == 0 && !is_email(text))
        return refuse(problem, "bad-value", "email", "is no address");
    if (strcmp(rule->name, "phone") == 0 && !is_phone(text))
        return refuse(problem, "bad-value", "phone", "must be like +491234567 (E.164)");
    if (strcmp(rule->name, "zone") == 0 && !is_zone(text))
        return refuse(problem, "bad-value", "zone",
                      "must be a zone of the IANA database, like Europe/Berlin");
    bool is_ours = tenant.len == len && memcmp(tenant.at, text, len) == 0;
    if (strcmp(rule->name, "tenant") == 0 && !is_ours)
        return refuse(problem, "tenant-not-allowed", "tenant",
                      "this key belongs to another tenant; leave it out");
    return 0;
}

static const struct profile_rule *find_rule(yyjson_val *key)
{
    for (size_t i = 0; i < RULES; i++) {
        if (yyjson_equals_str(key, rules[i].name))
            return &rules[i];
    }
    return NULL;
}

/* Checks a profile and appends its canonical form: members in the order of the table, nulls left
 * out. |id_field| is a member that is not the profile's (import), or NULL. */
static int write_profile(yyjson_val *root, const char *id_field, struct bf_bytes tenant,
                         struct bf_out *o, struct bf_problem *problem)
{
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    bool is_first = true;
    bf_out_text(o, "{");
    yyjson_obj_foreach (root, i, max, key, val) {
        if (id_field && yyjson_equals_str(key, id_field))
            continue;
        const struct profile_rule *rule = find_rule(key);
        if (!rule)
            return refuse(problem, "unknown-field", yyjson_get_str(key), "is no field of a user");
        if (yyjson_obj_get(root, rule->name) != val)
            return refuse(problem, "duplicate-field", rule->name, "is given twice");
        if (yyjson_is_null(val))
            continue;
        int rc = rule->bytes_max == 0 ? check_attributes(val, problem)
                                      : check_text(rule, val, tenant, problem);
        if (rc != 0)
            return rc;
        char *text = yyjson_val_write(val, 0, NULL);
        bf_out_print(o, "%s\"%s\":", is_first ? "" : ",", rule->name);
        bf_out_text(o, text ? text : "null");
        free(text);
        is_first = false;
    }
    bf_out_text(o, "}");
    return 0;
}

/* {"user_id":...,<profile members>} */
static void answer_user(struct bf_request *r, int status, struct bf_bytes user,
                        struct bf_bytes profile)
{
    struct bf_out o = {0};
    bf_out_text(&o, "{\"user_id\":");
    bf_out_str(&o, user);
    if (profile.len > 2) {
        bf_out_text(&o, ",");
        bf_out_raw(&o, profile.at + 1, profile.len - 1);
    } else {
        bf_out_text(&o, "}");
    }
    bf_answer_json(r, status, &o);
}

static bool read_profile(struct bf_request *r, struct bf_out *profile)
{
    static const char *const members[] = {"locale", "zone",       "email",
                                          "phone",  "attributes", "tenant"};
    yyjson_doc *doc;
    yyjson_val *root;
    struct bf_problem problem;
    if (!bf_read_object(r, members, RULES, true, &doc, &root))
        return false;
    int rc = write_profile(root, NULL, bf_tenant_of(r), profile, &problem);
    yyjson_doc_free(doc);
    if (rc != 0)
        bf_answer_problem(r, &problem);
    return rc == 0;
}

void bf_put_user(struct bf_request *r)
{
    struct bf_out profile = {0};
    bool is_created = false;
    if (read_profile(r, &profile)) {
        struct bf_bytes json = {profile.at, profile.len};
        int rc = profile.failed
                     ? -ENOMEM
                     : bf_core_put_user(bf_services_of(r)->core, bf_path_uid(r), json, &is_created);
        if (rc == 0)
            answer_user(r, is_created ? 201 : 200, r->user, json);
        else
            bf_answer_error(r, rc);
    }
    bf_out_free(&profile);
}

void bf_get_user(struct bf_request *r)
{
    struct bf_uid uid;
    char *json = NULL;
    size_t len = 0;
    if (!bf_known_path_uid(r, &uid))
        return;
    int rc = bf_store_get_user(bf_services_of(r)->store, uid, &json, &len);
    if (rc == 0 || rc == BF_ERR_NOT_FOUND) /* known, no profile: made by a connect or an event */
        answer_user(r, 200, r->user, (struct bf_bytes){json ? json : "{}", json ? len : 2});
    else
        bf_answer_error(r, rc);
    free(json);
}

/* The 200 comes after the store write, the shard's barrier and every worker's word (DESIGN 4.13).
 */
void bf_delete_user(struct bf_request *r)
{
    struct bf_uid uid;
    struct bf_out o = {0};
    if (!bf_known_path_uid(r, &uid))
        return;
    int rc = bf_core_erase_user(bf_services_of(r)->core, uid, bf_caller_of(r));
    if (rc != 0) {
        bf_answer_error(r, rc);
        return;
    }
    bf_out_text(&o, "{\"user_id\":");
    bf_out_str(&o, r->user);
    bf_out_text(&o, ",\"erased\":true}");
    bf_answer_json(r, 200, &o);
}

/* ---- import ---- */

struct import {
    struct bf_request *r;
    uint32_t lines, created, replaced, failed;
    struct bf_out errors;
};

static void note_error(struct import *im, const struct bf_problem *problem)
{
    if (im->failed++ >= IMPORT_ERRORS_MAX)
        return;
    bf_out_print(&im->errors, "%s{\"line\":%u,\"detail\":", im->failed > 1 ? "," : "", im->lines);
    bf_out_cstr(&im->errors, problem->detail);
    bf_out_text(&im->errors, "}");
}

static int import_user(struct import *im, yyjson_val *root, struct bf_problem *problem)
{
    /* what GET /v1/users/{id} answers names it "id": an export can be imported */
    const char *field = yyjson_obj_get(root, "user_id") ? "user_id" : "id";
    yyjson_val *id = yyjson_obj_get(root, field);
    struct bf_bytes user = {yyjson_get_str(id), yyjson_get_len(id)};
    struct bf_out profile = {0};
    bool is_created = false;
    if (!user.at || user.len == 0 || user.len > BF_USER_ID_BYTES_MAX ||
        bf_text_has_control(user.at, user.len))
        return refuse(problem, "missing-field", "user_id",
                      "a string of 1..128 bytes without control characters");
    int rc = write_profile(root, field, bf_tenant_of(im->r), &profile, problem);
    if (rc == 0) {
        struct bf_uid uid = {.tenant = bf_tenant_of(im->r), .user = user};
        rc = bf_core_put_user(bf_services_of(im->r)->core, uid,
                              (struct bf_bytes){profile.at, profile.len}, &is_created);
        if (rc != 0)
            bf_problem_set(problem, 503, "unavailable", "", "%s", bf_err_text(rc));
    }
    bf_out_free(&profile);
    if (rc == 0 && is_created)
        im->created++;
    else if (rc == 0)
        im->replaced++;
    return rc;
}

static void import_line(struct import *im, const char *at, size_t len)
{
    struct bf_problem problem;
    yyjson_read_err err = {0};
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)at, len, 0, NULL, &err);
    int rc;
    if (!doc || !yyjson_is_obj(yyjson_doc_get_root(doc))) {
        bf_problem_set(&problem, 400, "bad-json", "", "not a JSON object: %s",
                       err.msg ? err.msg : "another kind of value");
        rc = BF_ERR_MALFORMED;
    } else {
        rc = import_user(im, yyjson_doc_get_root(doc), &problem);
    }
    yyjson_doc_free(doc);
    if (rc != 0)
        note_error(im, &problem);
}

static void import_lines(struct import *im)
{
    const char *at = im->r->body;
    const char *end = at + im->r->body_len;
    while (at < end && im->lines < IMPORT_LINES_MAX) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t len = stop ? (size_t)(stop - at) : (size_t)(end - at);
        im->lines++;
        if (len > 0 && at[len - 1] == '\r')
            len--;
        if (len > 0)
            import_line(im, at, len);
        at = stop ? stop + 1 : end;
    }
    if (at < end) {
        struct bf_problem problem;
        im->lines++;
        bf_problem_set(&problem, 413, "too-many", "",
                       "more than %u lines: send the rest in another "
                       "request",
                       IMPORT_LINES_MAX);
        note_error(im, &problem);
    }
}

/* A thread of its own: thousands of store writes are not a server thread's work. */
static void *import_main(void *arg)
{
    struct import *im = arg;
    struct bf_request *r = im->r;
    struct bf_out o = {0};
    import_lines(im);
    bf_out_print(&o, "{\"created\":%u,\"replaced\":%u,\"failed\":%u,\"errors\":[", im->created,
                 im->replaced, im->failed);
    bf_out_bytes(&o, (struct bf_bytes){im->errors.at, im->errors.len});
    bf_out_text(&o, "]}");
    bf_out_free(&im->errors);
    free(im);
    bf_answer_json(r, 200, &o);
    atomic_fetch_sub(&bf_api_of(r)->imports, 1);
    bf_request_resume(r);
    return NULL;
}

static bool start_import(struct bf_request *r)
{
    struct import *im = calloc(1, sizeof(*im));
    pthread_attr_t attr;
    pthread_t thread;
    if (!im)
        return false;
    im->r = r;
    bf_request_suspend(r);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int rc = pthread_create(&thread, &attr, import_main, im);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        free(im);
        bf_answer_error(r, -ENOMEM);
        bf_request_resume(r);
    }
    return rc == 0;
}

void bf_import_users(struct bf_request *r)
{
    struct bf_api *api = bf_api_of(r);
    if (!bf_utf8_is_valid((struct bf_bytes){r->body, r->body_len})) {
        bf_answer_fail(r, 400, "bad-utf8", "", "the body is not valid UTF-8");
        return;
    }
    if (atomic_fetch_add(&api->imports, 1) >= IMPORTS_MAX) {
        bf_answer_fail(r, 503, "busy", "", "%u imports are running; try again", IMPORTS_MAX);
        atomic_fetch_sub(&api->imports, 1);
        return;
    }
    if (!start_import(r))
        atomic_fetch_sub(&api->imports, 1);
}
