/*
 * What the simulated providers know: keys, topics, accounts. Filled at start, read-only afterwards,
 * so every thread reads it without a lock. sim_ctx adds what one request needs besides: the time,
 * random numbers.
 */
#pragma once

#include "sim_rng.h"
#include "sim_types.h"

#define SIM_APNS_KEYS_MAX   16u
#define SIM_APNS_TOPICS_MAX 32u
#define SIM_NAME_BYTES_MAX  128u
#define SIM_BODY_BYTES_MAX  16384u /* held of a body; FCM's JSON around a 4096-byte payload fits */
#define SIM_TOKEN_BYTES_MAX 256u   /* of a device token or subscription, in records and rules */

enum sim_key_env {
    SIM_ENV_BOTH = 0,
    SIM_ENV_SANDBOX,
    SIM_ENV_PRODUCTION,
};

/* A provider token key. Keys of one team with different groups are "unrelated" on one connection.
 */
struct sim_apns_key {
    char kid[16], team[16];
    int group;
    enum sim_key_env env;
    bool revoked;
    char path[SIM_NAME_BYTES_MAX * 4];
};

struct sim_world {
    bool sandbox; /* APNs environment: sandbox keys and certificates are good, apns-unique-id is
                     sent */
    struct sim_apns_key keys[SIM_APNS_KEYS_MAX];
    uint32_t keys_count;
    char topics[SIM_APNS_TOPICS_MAX][SIM_TOPIC_BYTES_MAX]; /* bundle ids; none = any */
    uint32_t topics_count;
    uint32_t token_update_min_s; /* APNs: a second new token within it is refused; 0 = never */
    uint32_t token_age_max_s;    /* APNs: 3600 */
    char fcm_project[SIM_NAME_BYTES_MAX];
    char oauth_email[SIM_NAME_BYTES_MAX];
    char oauth_token_uri[SIM_NAME_BYTES_MAX];
    uint32_t access_token_ttl_s; /* 3599 */
    uint32_t webpush_ttl_max_s;  /* a longer TTL is shortened, and the answer says so */
};

struct sim_channels;

struct sim_ctx {
    const struct sim_world *world;
    struct sim_channels *channels; /* APNs broadcast channels; shared, locked inside */
    struct sim_rng *rng;           /* the calling thread's */
    int64_t now_ms;                /* since 1970 */
    /* Mints an access token into |out|; the caller's secret stays out of the pure part. */
    size_t (*mint_access_token)(const struct sim_ctx *c, char *out, size_t size);
    const void *secret;
};
