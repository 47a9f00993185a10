/* The providers' rows: see sim_provider.h. */
#include "sim_provider.h"

#include "sim_apns.h"
#include "sim_fcm.h"
#include "sim_oauth.h"
#include "sim_webpush.h"

static void apns_answer(const struct sim_ctx *c, struct sim_peer *peer, const struct sim_request *q,
                        struct sim_answer *a, char *target)
{
    (void)target;
    sim_apns_answer(c, peer, q, a);
}

static void apns_fail(struct sim_answer *a, uint16_t status, const char *reason,
                      int64_t timestamp_ms)
{
    if (!reason[0])
        reason = status == 429   ? "TooManyRequests"
                 : status == 500 ? "InternalServerError"
                 : status == 410 ? "Unregistered"
                 : status == 403 ? "Forbidden"
                                 : "ServiceUnavailable";
    if (status == 0 && sim_apns_status_of(reason) == 0)
        status = 503;
    sim_apns_fail(a, status, reason, timestamp_ms);
}

static void fcm_answer(const struct sim_ctx *c, struct sim_peer *peer, const struct sim_request *q,
                       struct sim_answer *a, char *target)
{
    (void)peer;
    sim_fcm_answer(c, q, a, target);
}

static void fcm_fail(struct sim_answer *a, uint16_t status, const char *reason,
                     int64_t timestamp_ms)
{
    (void)timestamp_ms;
    if (!reason[0])
        reason = status == 429   ? "QUOTA_EXCEEDED"
                 : status == 500 ? "INTERNAL"
                 : status == 404 ? "UNREGISTERED"
                 : status == 403 ? "SENDER_ID_MISMATCH"
                 : status == 401 ? "THIRD_PARTY_AUTH_ERROR"
                                 : "UNAVAILABLE";
    sim_fcm_fail(a, status, reason);
}

static void oauth_answer(const struct sim_ctx *c, struct sim_peer *peer,
                         const struct sim_request *q, struct sim_answer *a, char *target)
{
    (void)peer;
    (void)target;
    sim_oauth_answer(c, q, a);
}

static void oauth_fail(struct sim_answer *a, uint16_t status, const char *reason,
                       int64_t timestamp_ms)
{
    (void)timestamp_ms;
    sim_oauth_fail(a, status ? status : 503, reason[0] ? reason : "temporarily_unavailable",
                   "injected");
}

static void webpush_answer(const struct sim_ctx *c, struct sim_peer *peer,
                           const struct sim_request *q, struct sim_answer *a, char *target)
{
    (void)peer;
    (void)target;
    sim_webpush_answer(c, q, a);
}

static void webpush_fail(struct sim_answer *a, uint16_t status, const char *reason,
                         int64_t timestamp_ms)
{
    (void)timestamp_ms;
    if (status == 0)
        status = strcmp(reason, "Gone") == 0              ? 410
                 : strcmp(reason, "TooManyRequests") == 0 ? 429
                                                          : 503;
    if (!reason[0])
        reason = status == 429 ? "TooManyRequests" : status >= 500 ? "Unavailable" : "Gone";
    sim_webpush_fail(a, status, reason);
}

const struct sim_provider sim_providers[SIM_PROVIDER_COUNT] = {
    [SIM_APNS] = {"apns", false, true, apns_answer, apns_fail, "TooManyRequests", "Unregistered"},
    [SIM_FCM] = {"fcm", true, true, fcm_answer, fcm_fail, "QUOTA_EXCEEDED", "UNREGISTERED"},
    [SIM_OAUTH] = {"oauth", true, true, oauth_answer, oauth_fail, "rate_limited", "invalid_grant"},
    [SIM_WEBPUSH] = {"webpush", true, true, webpush_answer, webpush_fail, "TooManyRequests",
                     "Gone"},
};

int sim_provider_find(const char *name)
{
    for (int i = 0; i < SIM_PROVIDER_COUNT; i++)
        if (strcmp(sim_providers[i].name, name) == 0)
            return i;
    return -1;
}
