/* See push_answer.h. The tables are PROVIDERS.md's, row by row. */
#include "channels/push/push_answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One outcome, as the tables hold it. */
struct outcome {
    uint8_t class, action;
    uint16_t flags;
    uint32_t delay_ms;
};

#define OK                                                                                         \
    {                                                                                              \
        BF_CLASS_OK, BF_ACTION_DONE, 0, 0                                                          \
    }
#define DEAD                                                                                       \
    {                                                                                              \
        BF_CLASS_DEAD, BF_ACTION_DROP, BF_VERDICT_FORGET_ENDPOINT, 0                               \
    }
#define BAD                                                                                        \
    {                                                                                              \
        BF_CLASS_BAD, BF_ACTION_DROP, BF_VERDICT_PAGE, 0                                           \
    }
#define CONFIG                                                                                     \
    {                                                                                              \
        BF_CLASS_AUTH, BF_ACTION_DROP, BF_VERDICT_PAGE, 0                                          \
    }
#define STOP                                                                                       \
    {                                                                                              \
        BF_CLASS_AUTH, BF_ACTION_HOLD, BF_VERDICT_PAGE | BF_VERDICT_STOP_POOL,                     \
            BF_PUSH_THROTTLED_MS                                                                   \
    }
#define RENEW                                                                                      \
    {                                                                                              \
        BF_CLASS_AUTH, BF_ACTION_RETRY_ONCE, BF_VERDICT_RENEW, BF_PUSH_AUTH_MS                     \
    }
#define LATER(ms)                                                                                  \
    {                                                                                              \
        BF_CLASS_RETRY, BF_ACTION_RETRY, BF_VERDICT_FAULT, ms                                      \
    }

static void set(struct bf_verdict *ret, struct outcome o, struct bf_bytes reason)
{
    ret->class = (enum bf_class)o.class;
    ret->action = (enum bf_action)o.action;
    ret->flags = o.flags;
    ret->delay_ms = o.delay_ms;
    size_t n = 0;
    for (; n < reason.len && n < sizeof(ret->reason) - 1; n++) /* goes into logs and status rows */
        ret->reason[n] = reason.at[n] > ' ' && reason.at[n] <= '~' ? reason.at[n] : '_';
    ret->reason[n] = '\0';
}

static struct bf_bytes cstr(const char *text)
{
    return (struct bf_bytes){text, strlen(text)};
}

static void set_status(struct bf_verdict *ret, struct outcome o, unsigned status)
{
    char text[24];
    snprintf(text, sizeof(text), "http_%u", status);
    set(ret, o, cstr(text));
}

/* ---- scanning a body ---- */

/* The end of the string that begins after |at| (a quote), or NULL when the body ends first. */
static const char *string_end(const char *at, const char *end)
{
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\')
            at++;
    return at < end ? at : NULL;
}

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

/* First member of that name at any depth: its text without quotes, or its number. {NULL, 0}: none.
 * Walks over whole strings, so what a message quotes is never taken for a member. */
static struct bf_bytes member(struct bf_bytes body, const char *name)
{
    const char *at = body.at, *end = body.at + body.len;
    while (at && at < end) {
        if (*at != '"') {
            at++;
            continue;
        }
        const char *key = at + 1, *stop = string_end(at, end);
        if (!stop)
            break;
        at = skip_space(stop + 1, end);
        bool is_key = at < end && *at == ':';
        if (!is_key || (size_t)(stop - key) != strlen(name) || memcmp(key, name, strlen(name)) != 0)
            continue;
        const char *value = skip_space(at + 1, end);
        if (value < end && *value == '"') {
            stop = string_end(value, end);
            return stop ? (struct bf_bytes){value + 1, (size_t)(stop - value - 1)}
                        : (struct bf_bytes){0};
        }
        for (stop = value; stop < end && *stop >= '0' && *stop <= '9';)
            stop++;
        return (struct bf_bytes){value, (size_t)(stop - value)};
    }
    return (struct bf_bytes){0};
}

static uint64_t number_of(struct bf_bytes digits)
{
    uint64_t value = 0;
    for (size_t i = 0; i < digits.len && i < 19; i++) /* 19 digits fit 64 bits */
        value = value * 10 + (uint64_t)(digits.at[i] - '0');
    return value;
}

static bool holds(struct bf_bytes body, const char *text)
{
    return body.len > 0 && memmem(body.at, body.len, text, strlen(text)) != NULL;
}

/* ---- APNs ---- */

static const struct {
    const char *reason;
    uint16_t status; /* 0: any */
    struct outcome outcome;
} apns_rows[] = {
    {"BadDeviceToken", 400, DEAD},
    {"DeviceTokenNotForTopic", 400, DEAD},
    {"BadCollapseId", 400, BAD},
    {"BadExpirationDate", 400, BAD},
    {"BadMessageId", 400, BAD},
    {"BadPriority", 400, BAD},
    {"DuplicateHeaders", 400, BAD},
    {"InvalidPushType", 400, BAD},
    {"MissingDeviceToken", 400, BAD},
    {"PayloadEmpty", 400, BAD},
    {"BadChannelId", 400, BAD},
    {"MissingChannelId", 400, BAD},
    {"ChannelNotRegistered", 400, BAD},
    {"MissingPushType", 400, BAD},
    {"BadTopic", 400, CONFIG},
    {"MissingTopic", 400, CONFIG},
    {"TopicDisallowed", 400, CONFIG},
    {"IdleTimeout",
     400,
     {BF_CLASS_CONNECTION, BF_ACTION_RETRY, BF_VERDICT_RECONNECT, BF_PUSH_RECONNECT_MS}},
    {"ExpiredProviderToken", 403, RENEW},
    {"InvalidProviderToken", 403, STOP},
    {"MissingProviderToken", 403, STOP},
    {"BadCertificate", 403, STOP},
    {"BadCertificateEnvironment", 403, STOP},
    {"BadEnvironmentKeyIdInToken", 403, STOP},
    {"BadEnvironmentKeyInToken", 403, STOP}, /* the spelling of the live service */
    {"UnrelatedKeyIdInToken",
     403,
     {BF_CLASS_AUTH, BF_ACTION_RETRY_ONCE, BF_VERDICT_PAGE | BF_VERDICT_RECONNECT,
      BF_PUSH_RECONNECT_MS}},
    {"Forbidden", 403, CONFIG},
    {"BadPath", 404, BAD},
    {"MethodNotAllowed", 405, BAD},
    {"Unregistered", 410, DEAD},
    {"ExpiredToken", 410, DEAD},
    {"PayloadTooLarge", 413, BAD},
    {"TooManyRequests",
     429,
     {BF_CLASS_RETRY, BF_ACTION_RETRY, BF_VERDICT_SLOW_ENDPOINT, BF_PUSH_THROTTLED_MS}},
    {"TooManyProviderTokenUpdates",
     429,
     {BF_CLASS_AUTH, BF_ACTION_RETRY, BF_VERDICT_KEEP_TOKEN | BF_VERDICT_PAGE,
      BF_PUSH_THROTTLED_MS}},
    {"InternalServerError", 500, LATER(BF_PUSH_APNS_5XX_MS)},
    {"ServiceUnavailable", 503, LATER(BF_PUSH_APNS_5XX_MS)},
    {"Shutdown",
     503,
     {BF_CLASS_RETRY, BF_ACTION_RETRY, BF_VERDICT_FAULT | BF_VERDICT_RECONNECT,
      BF_PUSH_APNS_5XX_MS}},
};

/* A reason that no table has: the status alone decides. */
static void classify_status(unsigned status, uint32_t later_ms, struct bf_verdict *ret)
{
    if (status >= 200 && status < 300)
        set_status(ret, (struct outcome)OK, status);
    else if (status == 429)
        set_status(ret,
                   (struct outcome){BF_CLASS_RETRY, BF_ACTION_RETRY, BF_VERDICT_CUT_RATE,
                                    BF_PUSH_THROTTLED_MS},
                   status);
    else if (status == 408 || status >= 500)
        set_status(ret, (struct outcome)LATER(later_ms), status);
    else if (status == 401 || status == 403)
        set_status(ret, (struct outcome)STOP, status);
    else
        set_status(ret, (struct outcome)BAD, status);
}

/* A token registered after APNs found it dead is another one that looks alike: it stays. */
static void respect_timestamp(const struct bf_push_context *context, struct bf_bytes body,
                              struct bf_verdict *ret)
{
    uint64_t dead_since_ms = number_of(member(body, "timestamp"));
    if (dead_since_ms == 0 || context->registered_ms <= dead_since_ms)
        return;
    ret->class = BF_CLASS_RETRY;
    ret->action = BF_ACTION_RETRY_ONCE;
    ret->flags = 0;
    ret->delay_ms = BF_PUSH_THROTTLED_MS;
}

static void classify_apns(const struct bf_push_context *context, unsigned status,
                          struct bf_bytes body, struct bf_verdict *ret)
{
    struct bf_bytes reason = member(body, "reason");
    for (size_t i = 0; status >= 300 && i < sizeof(apns_rows) / sizeof(apns_rows[0]); i++) {
        if (apns_rows[i].status != status || !bf_bytes_is_equal(reason, cstr(apns_rows[i].reason)))
            continue;
        set(ret, apns_rows[i].outcome, reason);
        if (status == 410)
            respect_timestamp(context, body, ret);
        return;
    }
    classify_status(status, BF_PUSH_APNS_5XX_MS, ret);
    if (status == 410) { /* whatever the reason: gone */
        set(ret, (struct outcome)DEAD, reason.len ? reason : cstr("http_410"));
        respect_timestamp(context, body, ret);
    } else if (status >= 300 && reason.len > 0) {
        set(ret,
            (struct outcome){(uint8_t)ret->class, (uint8_t)ret->action, (uint16_t)ret->flags,
                             ret->delay_ms},
            reason);
    }
}

/* ---- FCM ---- */

static const struct {
    const char *code; /* errorCode of FcmError */
    uint16_t status;  /* 0: any */
    struct outcome outcome;
} fcm_rows[] = {
    {"INVALID_ARGUMENT", 400, BAD},
    {"THIRD_PARTY_AUTH_ERROR", 0,
     CONFIG}, /* of the project's APNs or Web Push key: Android goes on */
    {"APNS_AUTH_ERROR", 0, CONFIG},
    {"SENDER_ID_MISMATCH", 0, DEAD},
    {"UNREGISTERED", 0, DEAD},
    {"QUOTA_EXCEEDED",
     0,
     {BF_CLASS_RETRY, BF_ACTION_RETRY, BF_VERDICT_CUT_RATE, BF_PUSH_FCM_429_MS}},
    {"INTERNAL", 0, LATER(BF_PUSH_FCM_5XX_MS)},
    {"UNAVAILABLE", 0, LATER(BF_PUSH_FCM_5XX_MS)},
    {"UNSPECIFIED_ERROR",
     0,
     {BF_CLASS_RETRY, BF_ACTION_RETRY_ONCE, BF_VERDICT_FAULT, BF_PUSH_FCM_5XX_MS}},
};

/* No FcmError: Google's front end speaks, by google.rpc.Status. */
static void classify_rpc(unsigned status, struct bf_bytes body, struct bf_verdict *ret)
{
    struct bf_bytes word = member(body, "status");
    classify_status(status, BF_PUSH_FCM_5XX_MS, ret);
    if (status == 401)
        set(ret, (struct outcome)RENEW, word.len ? word : cstr("UNAUTHENTICATED"));
    else if (status == 404) /* no such project: a token would have been UNREGISTERED */
        set(ret, (struct outcome)CONFIG, word.len ? word : cstr("NOT_FOUND"));
    else if (status == 429)
        set(ret,
            (struct outcome){BF_CLASS_RETRY, BF_ACTION_RETRY, BF_VERDICT_CUT_RATE,
                             BF_PUSH_FCM_429_MS},
            word.len ? word : cstr("RESOURCE_EXHAUSTED"));
    else if (status >= 300 && word.len > 0)
        set(ret,
            (struct outcome){(uint8_t)ret->class, (uint8_t)ret->action, (uint16_t)ret->flags,
                             ret->delay_ms},
            word);
}

static void classify_fcm(unsigned status, struct bf_bytes body, struct bf_verdict *ret)
{
    struct bf_bytes code = member(body, "errorCode");
    if (status < 300 || code.len == 0) {
        classify_rpc(status, body, ret);
        return;
    }
    for (size_t i = 0; i < sizeof(fcm_rows) / sizeof(fcm_rows[0]); i++) {
        if ((fcm_rows[i].status != 0 && fcm_rows[i].status != status) ||
            !bf_bytes_is_equal(code, cstr(fcm_rows[i].code)))
            continue;
        set(ret, fcm_rows[i].outcome, code);
        /* a token is given up only when FCM names it, never for a request that may be malformed */
        if (status == 400 && !holds(body, "google.rpc.BadRequest") &&
            holds(body, "not a valid FCM registration token"))
            set(ret, (struct outcome)DEAD, code);
        return;
    }
    classify_status(status, BF_PUSH_FCM_5XX_MS, ret);
    set(ret,
        (struct outcome){(uint8_t)ret->class, (uint8_t)ret->action, (uint16_t)ret->flags,
                         ret->delay_ms},
        code);
}

/* ---- Web Push ---- */

static void classify_webpush(unsigned status, struct bf_verdict *ret)
{
    if (status == 404 || status == 410)
        set_status(ret, (struct outcome)DEAD, status);
    else if (status == 401 ||
             status == 403) /* VAPID: a token may be over; a wrong key stays wrong */
        set_status(ret, (struct outcome)RENEW, status);
    else
        classify_status(status, BF_PUSH_WEBPUSH_5XX_MS, ret);
}

/* ---- without an answer ---- */

static const struct {
    const char *word;
    struct outcome outcome;
} why_rows[BF_PUSH_WHY_COUNT] = {
    [BF_PUSH_WHY_NONE] = {"none", {BF_CLASS_CONNECTION, BF_ACTION_RETRY, 0, BF_PUSH_RECONNECT_MS}},
    [BF_PUSH_WHY_NO_POOL] = {"no_pool", {BF_CLASS_CONNECTION, BF_ACTION_RETRY, 0, BF_PUSH_AUTH_MS}},
    [BF_PUSH_WHY_BUSY] = {"busy", {BF_CLASS_CONNECTION, BF_ACTION_RETRY, 0, BF_PUSH_RECONNECT_MS}},
    [BF_PUSH_WHY_NO_CONNECTION] = {"no_connection",
                                   {BF_CLASS_CONNECTION, BF_ACTION_RETRY, BF_VERDICT_FAULT,
                                    BF_PUSH_RECONNECT_MS}},
    [BF_PUSH_WHY_CLOSED] = {"closed",
                            {BF_CLASS_CONNECTION, BF_ACTION_RETRY, BF_VERDICT_FAULT,
                             BF_PUSH_RECONNECT_MS}},
    [BF_PUSH_WHY_GOAWAY] = {"goaway", {BF_CLASS_CONNECTION, BF_ACTION_RETRY, 0, 0}},
    [BF_PUSH_WHY_REFUSED] = {"refused_stream", {BF_CLASS_CONNECTION, BF_ACTION_RETRY, 0, 0}},
    [BF_PUSH_WHY_RESET] = {"reset",
                           {BF_CLASS_CONNECTION, BF_ACTION_RETRY, BF_VERDICT_FAULT,
                            BF_PUSH_RECONNECT_MS}},
    [BF_PUSH_WHY_TIMEOUT] = {"timeout",
                             {BF_CLASS_CONNECTION, BF_ACTION_RETRY, BF_VERDICT_FAULT,
                              BF_PUSH_RECONNECT_MS}},
    [BF_PUSH_WHY_STOPPING] = {"stopping",
                              {BF_CLASS_CONNECTION, BF_ACTION_RETRY, 0, BF_PUSH_RECONNECT_MS}},
    [BF_PUSH_WHY_BAD_REQUEST] = {"bad_request_record", BAD},
    [BF_PUSH_WHY_BAD_ANSWER] = {"bad_answer",
                                {BF_CLASS_CONNECTION, BF_ACTION_RETRY, BF_VERDICT_FAULT,
                                 BF_PUSH_RECONNECT_MS}},
    /* the next look finds out why: opted out, erased, or in again by now */
    [BF_PUSH_WHY_MASKED] = {"taken_back", {BF_CLASS_CONNECTION, BF_ACTION_RETRY, 0, 0}},
};

static void classify_end(const struct bf_rcpt_push *answer, struct bf_verdict *ret)
{
    unsigned why = answer->why < BF_PUSH_WHY_COUNT ? answer->why : BF_PUSH_WHY_NONE;
    set(ret, why_rows[why].outcome, cstr(why_rows[why].word));
    if (answer->end != BF_PUSH_NOT_SENT)
        ret->flags |= BF_VERDICT_MAY_DOUBLE;
}

void bf_push_classify(const struct bf_push_context *context, const struct bf_rcpt_push *answer,
                      struct bf_bytes body, struct bf_verdict *ret)
{
    *ret = (struct bf_verdict){0};
    if (answer->end != BF_PUSH_ANSWERED) {
        classify_end(answer, ret);
        return;
    }
    if (context->kind == BF_PUSH_APNS)
        classify_apns(context, answer->status, body, ret);
    else if (context->kind == BF_PUSH_FCM)
        classify_fcm(answer->status, body, ret);
    else
        classify_webpush(answer->status, ret);
    bool waits = ret->action == BF_ACTION_RETRY || ret->action == BF_ACTION_RETRY_ONCE;
    if (waits && answer->retry_after_s != BF_PUSH_NO_RETRY_AFTER) { /* what they say wins */
        uint64_t ms = (uint64_t)answer->retry_after_s * 1000;
        ret->delay_ms = ms < BF_PUSH_DELAY_MAX_MS ? (uint32_t)ms : BF_PUSH_DELAY_MAX_MS;
    }
}
