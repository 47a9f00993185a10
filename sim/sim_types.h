/*
 * What the parts of belfry-sim share: a request as a provider sees it, and its answer. Types only;
 * nothing here does I/O. A request and all its slices live until the answer has been recorded.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The provider table. SMTP, SMS and webhook take their place here: a row in sim_provider.c each. */
enum sim_provider_id {
    SIM_APNS = 0,
    SIM_FCM,
    SIM_OAUTH,
    SIM_WEBPUSH,
    SIM_PROVIDER_COUNT,
};

struct sim_slice {
    const char *p;
    uint32_t n;
};

/* Request fields that some provider looks at; every other field is ignored, as APNs does. */
enum sim_field {
    SIM_F_METHOD = 0,
    SIM_F_PATH,
    SIM_F_AUTHORITY, /* Host in HTTP/1.1 */
    SIM_F_AUTHORIZATION,
    SIM_F_CONTENT_TYPE,
    SIM_F_CONTENT_ENCODING,
    SIM_F_APNS_ID,
    SIM_F_APNS_REQUEST_ID,
    SIM_F_APNS_TOPIC,
    SIM_F_APNS_PUSH_TYPE,
    SIM_F_APNS_PRIORITY,
    SIM_F_APNS_EXPIRATION,
    SIM_F_APNS_COLLAPSE_ID,
    SIM_F_APNS_CHANNEL_ID,
    SIM_F_TTL,
    SIM_F_URGENCY,
    SIM_F_TOPIC,
    SIM_F_PREFER,
    SIM_F_COUNT,
};

/* What an Authorization field turned out to hold; filled by sim_auth.c, judged by the providers. */
enum sim_auth_kind {
    SIM_AUTH_NONE = 0,  /* no Authorization */
    SIM_AUTH_MALFORMED, /* not of the form that the provider wants */
    SIM_AUTH_BAD,       /* well-formed; unknown key or wrong signature */
    SIM_AUTH_GOOD,      /* signature holds; the claims below are the sender's */
};

#define SIM_CLAIM_BYTES_MAX                                                                        \
    160u /* an origin, a service account's address; longer counts as malformed */

struct sim_claims {
    enum sim_auth_kind kind;
    uint64_t fingerprint; /* hash of the whole token: another token, another value */
    int key;              /* APNs: row of the key table, else -1 */
    int64_t iat, exp;     /* seconds since 1970; 0 = absent */
    char iss[SIM_CLAIM_BYTES_MAX], aud[SIM_CLAIM_BYTES_MAX], sub[SIM_CLAIM_BYTES_MAX],
        scope[SIM_CLAIM_BYTES_MAX];
};

/* Client certificate of a connection (APNs). */
enum sim_cert_state {
    SIM_CERT_NONE = 0,
    SIM_CERT_UNTRUSTED, /* not of our CA, or out of date */
    SIM_CERT_SANDBOX,   /* good for the sandbox only */
    SIM_CERT_BOTH,
};

#define SIM_TOPIC_BYTES_MAX 160u
#define SIM_CERT_TOPICS_MAX 8u

/* What a connection has shown so far. APNs binds the first push's team, key kind to its connection.
 */
struct sim_peer {
    enum sim_cert_state cert;
    char cert_topics[SIM_CERT_TOPICS_MAX][SIM_TOPIC_BYTES_MAX];
    uint32_t cert_topics_count;
    int bound_key;              /* row of the key table that the first good push used, or -1 */
    uint64_t token_fingerprint; /* provider token in use, 0 = none yet */
    int64_t token_since_s;      /* when it was first seen here */
    bool authenticated;         /* an answer was given to a request with good credentials */
};

struct sim_request {
    struct sim_slice field[SIM_F_COUNT];
    uint32_t seen;       /* 1u << field */
    uint32_t repeated;   /* 1u << field: came more than once */
    bool fields_too_big; /* a field did not fit: 431 */
    const char *body;
    uint32_t body_bytes;       /* held in |body| */
    uint64_t body_bytes_total; /* received; more than |body_bytes| if it did not fit */
    const struct sim_claims *claims;
};

#define SIM_ANSWER_BODY_BYTES_MAX 1024u
#define SIM_ANSWER_FIELDS_MAX     4u
#define SIM_ID_BYTES_MAX          192u

struct sim_answer_field {
    const char *name; /* static text, lower case */
    char value[SIM_ID_BYTES_MAX];
};

struct sim_answer {
    uint16_t status;
    const char *reason;            /* "" when accepted; static text, or the fault script's */
    bool authenticated;            /* credentials were good: APNs opens its stream limit */
    struct sim_slice token, topic; /* of the request: device token, subscription, FCM target */
    char id[SIM_ID_BYTES_MAX];     /* apns-id or message id; "" = none */
    uint32_t retry_after_s;        /* 0 = no Retry-After */
    struct sim_answer_field fields[SIM_ANSWER_FIELDS_MAX];
    uint32_t fields_count;
    const char *content_type; /* NULL without body */
    uint32_t body_bytes;
    char body[SIM_ANSWER_BODY_BYTES_MAX];
};

static inline bool sim_slice_is(struct sim_slice s, const char *text)
{
    size_t n = strlen(text);
    return s.n == n && memcmp(s.p, text, n) == 0;
}

static inline bool sim_slice_begins(struct sim_slice s, const char *text)
{
    size_t n = strlen(text);
    return s.n >= n && memcmp(s.p, text, n) == 0;
}

static inline bool sim_request_has(const struct sim_request *q, enum sim_field f)
{
    return (q->seen >> f) & 1u;
}
