/*
 * What providers answer and what follows: one row for each row of the provider tables (APNs 1.4,
 * FCM 2, Web Push 3), then what a table cannot say: timestamps, Retry-After, bodies that were cut.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "channels/push/push_answer.h"

#define MIN    (60u * 1000u)
#define FORGET BF_VERDICT_FORGET_ENDPOINT
#define PAGE   BF_VERDICT_PAGE
#define STOP   BF_VERDICT_STOP_POOL
#define FAULT  BF_VERDICT_FAULT
#define FCM_ERROR(code, text)                                                                      \
    "{\n \"error\": {\"code\": 400, \"message\": \"" text "\", \"status\": \"X\", \"details\": "   \
    "[{\"@type\": \"type.googleapis.com/google.firebase.fcm.v1.FcmError\", \"errorCode\": "        \
    "\"" code "\"}]}}"
#define RPC_ERROR(status) "{\"error\":{\"code\":1,\"message\":\"m\",\"status\":\"" status "\"}}"
#define REASON(reason)    "{\"reason\":\"" reason "\"}"

struct row {
    enum bf_push_kind kind;
    uint16_t status;
    const char *body;
    enum bf_class class;
    enum bf_action action;
    uint32_t flags;
    uint32_t delay_ms;
    const char *reason;
};

#define APNS BF_PUSH_APNS
#define FCM  BF_PUSH_FCM
#define WEB  BF_PUSH_WEBPUSH
#define A_DEAD(status, reason)                                                                     \
    {                                                                                              \
        APNS, status, REASON(reason), BF_CLASS_DEAD, BF_ACTION_DROP, FORGET, 0, reason             \
    }
#define A_BAD(status, reason)                                                                      \
    {                                                                                              \
        APNS, status, REASON(reason), BF_CLASS_BAD, BF_ACTION_DROP, PAGE, 0, reason                \
    }
#define A_CONFIG(status, reason)                                                                   \
    {                                                                                              \
        APNS, status, REASON(reason), BF_CLASS_AUTH, BF_ACTION_DROP, PAGE, 0, reason               \
    }
#define A_STOP(reason)                                                                             \
    {                                                                                              \
        APNS, 403, REASON(reason), BF_CLASS_AUTH, BF_ACTION_HOLD, PAGE | STOP, MIN, reason         \
    }
#define F_CONFIG(status, code)                                                                     \
    {                                                                                              \
        FCM, status, FCM_ERROR(code, "t"), BF_CLASS_AUTH, BF_ACTION_DROP, PAGE, 0, code            \
    }
#define F_DEAD(status, code)                                                                       \
    {                                                                                              \
        FCM, status, FCM_ERROR(code, "t"), BF_CLASS_DEAD, BF_ACTION_DROP, FORGET, 0, code          \
    }
#define F_LATER(status, code)                                                                      \
    {                                                                                              \
        FCM, status, FCM_ERROR(code, "t"), BF_CLASS_RETRY, BF_ACTION_RETRY, FAULT, 10000, code     \
    }

static const struct row rows[] = {
    /* APNs */
    {APNS, 200, "", BF_CLASS_OK, BF_ACTION_DONE, 0, 0, "http_200"},
    A_DEAD(400, "BadDeviceToken"),
    A_DEAD(400, "DeviceTokenNotForTopic"),
    A_BAD(400, "BadCollapseId"),
    A_BAD(400, "BadExpirationDate"),
    A_BAD(400, "BadMessageId"),
    A_BAD(400, "BadPriority"),
    A_BAD(400, "DuplicateHeaders"),
    A_BAD(400, "InvalidPushType"),
    A_BAD(400, "MissingDeviceToken"),
    A_BAD(400, "PayloadEmpty"),
    A_BAD(400, "BadChannelId"),
    A_BAD(400, "MissingChannelId"),
    A_BAD(400, "ChannelNotRegistered"),
    A_BAD(400, "MissingPushType"),
    A_CONFIG(400, "BadTopic"),
    A_CONFIG(400, "MissingTopic"),
    A_CONFIG(400, "TopicDisallowed"),
    {APNS, 400, REASON("IdleTimeout"), BF_CLASS_CONNECTION, BF_ACTION_RETRY, BF_VERDICT_RECONNECT,
     1000, "IdleTimeout"},
    {APNS, 403, REASON("ExpiredProviderToken"), BF_CLASS_AUTH, BF_ACTION_RETRY_ONCE,
     BF_VERDICT_RENEW, 5000, "ExpiredProviderToken"},
    A_STOP("InvalidProviderToken"),
    A_STOP("MissingProviderToken"),
    A_STOP("BadCertificate"),
    A_STOP("BadCertificateEnvironment"),
    A_STOP("BadEnvironmentKeyIdInToken"),
    A_STOP("BadEnvironmentKeyInToken"),
    {APNS, 403, REASON("UnrelatedKeyIdInToken"), BF_CLASS_AUTH, BF_ACTION_RETRY_ONCE,
     PAGE | BF_VERDICT_RECONNECT, 1000, "UnrelatedKeyIdInToken"},
    A_CONFIG(403, "Forbidden"),
    A_BAD(404, "BadPath"),
    A_BAD(405, "MethodNotAllowed"),
    A_DEAD(410, "Unregistered"),
    A_DEAD(410, "ExpiredToken"),
    A_BAD(413, "PayloadTooLarge"),
    {APNS, 429, REASON("TooManyRequests"), BF_CLASS_RETRY, BF_ACTION_RETRY,
     BF_VERDICT_SLOW_ENDPOINT, MIN, "TooManyRequests"},
    {APNS, 429, REASON("TooManyProviderTokenUpdates"), BF_CLASS_AUTH, BF_ACTION_RETRY,
     BF_VERDICT_KEEP_TOKEN | PAGE, MIN, "TooManyProviderTokenUpdates"},
    {APNS, 500, REASON("InternalServerError"), BF_CLASS_RETRY, BF_ACTION_RETRY, FAULT, 15 * MIN,
     "InternalServerError"},
    {APNS, 503, REASON("ServiceUnavailable"), BF_CLASS_RETRY, BF_ACTION_RETRY, FAULT, 15 * MIN,
     "ServiceUnavailable"},
    {APNS, 503, REASON("Shutdown"), BF_CLASS_RETRY, BF_ACTION_RETRY, FAULT | BF_VERDICT_RECONNECT,
     15 * MIN, "Shutdown"},
    /* APNs, what no table has */
    {APNS, 400, REASON("NewReason"), BF_CLASS_BAD, BF_ACTION_DROP, PAGE, 0, "NewReason"},
    {APNS, 403, REASON("NewReason"), BF_CLASS_AUTH, BF_ACTION_HOLD, PAGE | STOP, MIN, "NewReason"},
    {APNS, 410, "", BF_CLASS_DEAD, BF_ACTION_DROP, FORGET, 0, "http_410"},
    {APNS, 429, "", BF_CLASS_RETRY, BF_ACTION_RETRY, BF_VERDICT_CUT_RATE, MIN, "http_429"},
    {APNS, 502, "<html>", BF_CLASS_RETRY, BF_ACTION_RETRY, FAULT, 15 * MIN, "http_502"},
    {APNS, 302, "", BF_CLASS_BAD, BF_ACTION_DROP, PAGE, 0, "http_302"},
    {APNS, 404, REASON("BadDeviceToken"), BF_CLASS_BAD, BF_ACTION_DROP, PAGE, 0, "BadDeviceToken"},
    {APNS, 400, "{\"reason\":\"a b\\u0000\n\"}", BF_CLASS_BAD, BF_ACTION_DROP, PAGE, 0,
     "a_b\\u0000_"},
    /* FCM */
    {FCM, 200, "{\"name\":\"projects/p/messages/1\"}", BF_CLASS_OK, BF_ACTION_DONE, 0, 0,
     "http_200"},
    {FCM, 400, FCM_ERROR("INVALID_ARGUMENT", "Invalid data payload key"), BF_CLASS_BAD,
     BF_ACTION_DROP, PAGE, 0, "INVALID_ARGUMENT"},
    {FCM, 400,
     FCM_ERROR("INVALID_ARGUMENT", "The registration token is not a valid FCM registration token"),
     BF_CLASS_DEAD, BF_ACTION_DROP, FORGET, 0, "INVALID_ARGUMENT"},
    {FCM, 400,
     "{\"error\":{\"status\":\"INVALID_ARGUMENT\",\"details\":[{\"@type\":\"type.googleapis.com/"
     "google.rpc.BadRequest\"}]}}",
     BF_CLASS_BAD, BF_ACTION_DROP, PAGE, 0, "INVALID_ARGUMENT"},
    {FCM, 400,
     "{\"error\":{\"message\":\"not a valid FCM registration token\",\"details\":[{\"errorCode\":"
     "\"INVALID_ARGUMENT\"},{\"@type\":\"type.googleapis.com/google.rpc.BadRequest\"}]}}",
     BF_CLASS_BAD, BF_ACTION_DROP, PAGE, 0, "INVALID_ARGUMENT"},
    F_CONFIG(401, "THIRD_PARTY_AUTH_ERROR"),
    F_CONFIG(401, "APNS_AUTH_ERROR"),
    {FCM, 401, RPC_ERROR("UNAUTHENTICATED"), BF_CLASS_AUTH, BF_ACTION_RETRY_ONCE, BF_VERDICT_RENEW,
     5000, "UNAUTHENTICATED"},
    F_DEAD(403, "SENDER_ID_MISMATCH"),
    {FCM, 403, RPC_ERROR("PERMISSION_DENIED"), BF_CLASS_AUTH, BF_ACTION_HOLD, PAGE | STOP, MIN,
     "PERMISSION_DENIED"},
    F_DEAD(404, "UNREGISTERED"),
    {FCM, 404, RPC_ERROR("NOT_FOUND"), BF_CLASS_AUTH, BF_ACTION_DROP, PAGE, 0, "NOT_FOUND"},
    {FCM, 429, FCM_ERROR("QUOTA_EXCEEDED", "t"), BF_CLASS_RETRY, BF_ACTION_RETRY,
     BF_VERDICT_CUT_RATE, MIN, "QUOTA_EXCEEDED"},
    {FCM, 429, RPC_ERROR("RESOURCE_EXHAUSTED"), BF_CLASS_RETRY, BF_ACTION_RETRY,
     BF_VERDICT_CUT_RATE, MIN, "RESOURCE_EXHAUSTED"},
    F_LATER(500, "INTERNAL"),
    F_LATER(503, "UNAVAILABLE"),
    {FCM, 500, FCM_ERROR("UNSPECIFIED_ERROR", "t"), BF_CLASS_RETRY, BF_ACTION_RETRY_ONCE, FAULT,
     10000, "UNSPECIFIED_ERROR"},
    {FCM, 502, "<html>bad gateway", BF_CLASS_RETRY, BF_ACTION_RETRY, FAULT, 10000, "http_502"},
    {FCM, 503, RPC_ERROR("UNAVAILABLE"), BF_CLASS_RETRY, BF_ACTION_RETRY, FAULT, 10000,
     "UNAVAILABLE"},
    {FCM, 400, FCM_ERROR("BRAND_NEW", "t"), BF_CLASS_BAD, BF_ACTION_DROP, PAGE, 0, "BRAND_NEW"},
    {FCM, 404, FCM_ERROR("X", "say \\\"errorCode\\\": \\\"UNREGISTERED\\\" aloud"), BF_CLASS_BAD,
     BF_ACTION_DROP, PAGE, 0, "X"},
    /* Web Push */
    {WEB, 201, "", BF_CLASS_OK, BF_ACTION_DONE, 0, 0, "http_201"},
    {WEB, 202, "", BF_CLASS_OK, BF_ACTION_DONE, 0, 0, "http_202"},
    {WEB, 404, "", BF_CLASS_DEAD, BF_ACTION_DROP, FORGET, 0, "http_404"},
    {WEB, 410, "", BF_CLASS_DEAD, BF_ACTION_DROP, FORGET, 0, "http_410"},
    {WEB, 413, "", BF_CLASS_BAD, BF_ACTION_DROP, PAGE, 0, "http_413"},
    {WEB, 429, "", BF_CLASS_RETRY, BF_ACTION_RETRY, BF_VERDICT_CUT_RATE, MIN, "http_429"},
    {WEB, 400, "", BF_CLASS_BAD, BF_ACTION_DROP, PAGE, 0, "http_400"},
    {WEB, 401, "", BF_CLASS_AUTH, BF_ACTION_RETRY_ONCE, BF_VERDICT_RENEW, 5000, "http_401"},
    {WEB, 403, "", BF_CLASS_AUTH, BF_ACTION_RETRY_ONCE, BF_VERDICT_RENEW, 5000, "http_403"},
    {WEB, 500, "", BF_CLASS_RETRY, BF_ACTION_RETRY, FAULT, 10000, "http_500"},
    {WEB, 503, "", BF_CLASS_RETRY, BF_ACTION_RETRY, FAULT, 10000, "http_503"},
};

static struct bf_verdict ask(enum bf_push_kind kind, uint16_t status, const char *body,
                             uint32_t retry_after_s, uint64_t registered_ms)
{
    struct bf_push_context context = {.kind = kind, .registered_ms = registered_ms};
    struct bf_rcpt_push answer = {
        .status = status, .retry_after_s = retry_after_s, .end = BF_PUSH_ANSWERED};
    struct bf_verdict verdict;
    bf_push_classify(&context, &answer, (struct bf_bytes){body, strlen(body)}, &verdict);
    return verdict;
}

Test(push_answer, every_row)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *r = &rows[i];
        struct bf_verdict v = ask(r->kind, r->status, r->body, BF_PUSH_NO_RETRY_AFTER, 0);
        cr_expect_eq(v.class, r->class, "%u %s: class %s", r->status, r->reason,
                     bf_class_name(v.class));
        cr_expect_eq(v.action, r->action, "%u %s: action %d", r->status, r->reason, v.action);
        cr_expect_eq(v.flags, r->flags, "%u %s: flags %x", r->status, r->reason, v.flags);
        cr_expect_eq(v.delay_ms, r->delay_ms, "%u %s: delay %u", r->status, r->reason, v.delay_ms);
        cr_expect_str_eq(v.reason, r->reason);
    }
    cr_assert_geq(sizeof(rows) / sizeof(rows[0]), 70);
}

/* A request that ended without an answer: again, unless it never could have been sent. */
Test(push_answer, every_end)
{
    static const struct {
        enum bf_push_why why;
        const char *word;
        uint32_t flags;
        uint32_t delay_ms;
        enum bf_action action;
    } ends[] = {
        {BF_PUSH_WHY_NO_POOL, "no_pool", 0, 5000, BF_ACTION_RETRY},
        {BF_PUSH_WHY_BUSY, "busy", 0, 1000, BF_ACTION_RETRY},
        {BF_PUSH_WHY_NO_CONNECTION, "no_connection", FAULT, 1000, BF_ACTION_RETRY},
        {BF_PUSH_WHY_CLOSED, "closed", FAULT, 1000, BF_ACTION_RETRY},
        {BF_PUSH_WHY_GOAWAY, "goaway", 0, 0, BF_ACTION_RETRY},
        {BF_PUSH_WHY_REFUSED, "refused_stream", 0, 0, BF_ACTION_RETRY},
        {BF_PUSH_WHY_RESET, "reset", FAULT, 1000, BF_ACTION_RETRY},
        {BF_PUSH_WHY_TIMEOUT, "timeout", FAULT, 1000, BF_ACTION_RETRY},
        {BF_PUSH_WHY_STOPPING, "stopping", 0, 1000, BF_ACTION_RETRY},
        {BF_PUSH_WHY_BAD_REQUEST, "bad_request_record", PAGE, 0, BF_ACTION_DROP},
        {BF_PUSH_WHY_BAD_ANSWER, "bad_answer", FAULT, 1000, BF_ACTION_RETRY},
        {BF_PUSH_WHY_MASKED, "taken_back", 0, 0, BF_ACTION_RETRY},
        {(enum bf_push_why)200, "none", 0, 1000, BF_ACTION_RETRY},
    };
    struct bf_push_context context = {.kind = APNS};
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        for (unsigned end = BF_PUSH_NOT_SENT; end <= BF_PUSH_UNKNOWN; end++) {
            struct bf_rcpt_push answer = {.end = (uint8_t)end,
                                          .why = (uint8_t)ends[i].why,
                                          .retry_after_s = BF_PUSH_NO_RETRY_AFTER};
            struct bf_verdict v;
            uint32_t doubles = end == BF_PUSH_UNKNOWN ? BF_VERDICT_MAY_DOUBLE : 0;
            bf_push_classify(&context, &answer, (struct bf_bytes){0}, &v);
            cr_expect_str_eq(v.reason, ends[i].word);
            cr_expect_eq(v.action, ends[i].action, "%s", ends[i].word);
            cr_expect_eq(v.flags, ends[i].flags | doubles, "%s: %x", ends[i].word, v.flags);
            cr_expect_eq(v.delay_ms, ends[i].delay_ms, "%s", ends[i].word);
        }
    }
}

/* PROVIDERS 1.4: delete only if our registration is not younger than APNs' confirmation. */
Test(push_answer, timestamp_of_410)
{
    const char *body = "{\"reason\":\"Unregistered\",\"timestamp\":1700000000000}";
    struct bf_verdict v = ask(APNS, 410, body, BF_PUSH_NO_RETRY_AFTER, 1699999999999);
    cr_expect_eq(v.class, BF_CLASS_DEAD);
    v = ask(APNS, 410, body, BF_PUSH_NO_RETRY_AFTER, 1700000000000);
    cr_expect_eq(v.class, BF_CLASS_DEAD, "the same instant is not later");
    v = ask(APNS, 410, body, BF_PUSH_NO_RETRY_AFTER, 1700000000001);
    cr_expect_eq(v.class, BF_CLASS_RETRY);
    cr_expect_eq(v.action, BF_ACTION_RETRY_ONCE);
    cr_expect_eq(v.flags & FORGET, 0, "a token registered later stays");
    v = ask(APNS, 410, REASON("Unregistered"), BF_PUSH_NO_RETRY_AFTER, 1700000000001);
    cr_expect_eq(v.class, BF_CLASS_DEAD, "no timestamp: believed");
    v = ask(APNS, 410, "{\"timestamp\": 1700000000000, \"reason\": \"Brand New\"}",
            BF_PUSH_NO_RETRY_AFTER, 1700000000001);
    cr_expect_eq(v.class, BF_CLASS_RETRY);
}

Test(push_answer, retry_after_wins)
{
    struct bf_verdict v = ask(FCM, 503, FCM_ERROR("UNAVAILABLE", "t"), 7, 0);
    cr_expect_eq(v.delay_ms, 7000);
    v = ask(APNS, 503, REASON("ServiceUnavailable"), 2, 0);
    cr_expect_eq(v.delay_ms, 2000, "none is documented; one that comes is honoured");
    v = ask(WEB, 429, "", 0, 0);
    cr_expect_eq(v.delay_ms, 0);
    v = ask(WEB, 429, "", UINT32_MAX - 1, 0);
    cr_expect_eq(v.delay_ms, BF_PUSH_DELAY_MAX_MS);
    v = ask(WEB, 413, "", 5, 0);
    cr_expect_eq(v.delay_ms, 0, "nothing is retried: nothing waits");
    v = ask(WEB, 201, "", 5, 0);
    cr_expect_eq(v.delay_ms, 0);
}

/* The dataplane keeps 512 bytes: wherever the cut falls, nothing is read beyond it and no token
 * dies. */
Test(push_answer, cut_bodies)
{
    const char *whole = FCM_ERROR("UNREGISTERED", "Requested \\\"entity\\\" was not found.");
    size_t len = strlen(whole);
    for (size_t n = 0; n < len; n++) {
        char *cut = malloc(n + 1); /* exact size: a sanitizer sees a step too far */
        struct bf_push_context context = {.kind = FCM};
        struct bf_rcpt_push answer = {
            .status = 404, .end = BF_PUSH_ANSWERED, .retry_after_s = BF_PUSH_NO_RETRY_AFTER};
        struct bf_verdict v;
        memcpy(cut, whole, n);
        cr_assert_not_null(cut);
        bf_push_classify(&context, &answer, (struct bf_bytes){cut, n}, &v);
        bool has_code = strstr(whole, "UNREGISTERED\"") + strlen("UNREGISTERED\"") <= whole + n;
        cr_expect_eq(v.class == BF_CLASS_DEAD, has_code, "cut at %zu: %s", n, v.reason);
        free(cut);
    }
}
