/*
 * Fault script: what goes wrong, when, how often, and at whom. Parsed from JSON (docs/SIM.md), then
 * immutable but for the counters in it, and shared by all threads by reference count. Decisions are
 * pure functions of script, seed, time and the caller's random numbers; the connection code acts on
 * them.
 */
#pragma once

#include <stdatomic.h>

#include "sim_world.h"

#define SIM_FAULTS_MAX         64u
#define SIM_TOKEN_RULES_MAX    65536u
#define SIM_SCRIPT_BYTES_MAX   (16u << 20) /* of a POST /faults: 65,536 token rules fit */
#define SIM_SCRIPT_ERROR_BYTES 160u
#define SIM_TOKEN_WINDOWS                                                                          \
    65536u /* throttle per token: places of the table; two tokens may share one */

enum sim_fault_kind {
    SIM_THROTTLE = 0,    /* 429 above per_s; per: provider or token */
    SIM_STORM,           /* status with probability rate, before any check */
    SIM_ANSWER,          /* this status and reason for what would be accepted */
    SIM_DEAD,            /* hash of the token below rate: gone for good */
    SIM_GOAWAY,          /* after_streams are served, `drop` more arrive in vain, GOAWAY, close */
    SIM_STREAM_LIMIT,    /* SETTINGS_MAX_CONCURRENT_STREAMS = limit */
    SIM_HALF_OPEN,       /* after_streams: reads and answers nothing more, keeps the socket */
    SIM_RESET,           /* connection cut by TCP reset after after_streams, or how: stream */
    SIM_REFUSE_STREAM,   /* RST_STREAM REFUSED_STREAM: not processed */
    SIM_STALL,           /* this stream is never answered, the connection lives */
    SIM_NONSENSE,        /* after_streams: frames that no RFC allows */
    SIM_ENDLESS_HEADERS, /* after_streams: CONTINUATION without end */
    SIM_REFUSE,          /* nobody listens: connection refused */
    SIM_SLOW_TLS,        /* the handshake begins delay_ms late */
    SIM_WRONG_ALPN,      /* how: another protocol's name, "none" or "alert" */
    SIM_OUTAGE,          /* how: refuse (default), reset or silent; open connections too */
    SIM_FAULT_KIND_COUNT,
};

struct sim_fault {
    enum sim_fault_kind kind;
    uint32_t providers;        /* 1u << provider */
    int64_t start_ms, stop_ms; /* since the script began; stop 0 = for ever */
    double rate;               /* 0..1, default 1 */
    double per_s;              /* throttle */
    bool per_token;            /* throttle */
    uint64_t after_streams;    /* of one connection */
    uint32_t drop;             /* goaway: streams left unprocessed */
    uint32_t limit;            /* stream_limit */
    uint32_t delay_ms;         /* slow_tls */
    uint16_t status;           /* 0 = the provider's usual one */
    uint32_t retry_after_s;    /* 0 = no field */
    uint32_t times;            /* answer: given so often, then no more; 0 = always */
    int64_t timestamp_ms;      /* dead: in a 410; 0 = when the script began */
    char reason[64], how[24];
    char token[SIM_TOKEN_BYTES_MAX]; /* answer: this token only; "" = any */
    _Atomic uint64_t fired;          /* relaxed: a count, nothing else is published by it */
    _Atomic uint64_t window;         /* throttle: 100 ms window << 32 | requests in it */
};

struct sim_token_rule {
    enum sim_provider_id provider;
    uint16_t status; /* 0 and no reason: alive */
    int64_t timestamp_ms;
    char token[SIM_TOKEN_BYTES_MAX], topic[SIM_TOPIC_BYTES_MAX], reason[64];
};

struct sim_script {
    _Atomic uint32_t refs;
    uint64_t seed;
    int64_t began_ms; /* since 1970: when it was taken into force */
    uint32_t kinds;   /* 1u << kind of what is in |faults|: the common request looks no further */
    struct sim_latency latency[SIM_PROVIDER_COUNT];
    struct sim_fault faults[SIM_FAULTS_MAX];
    uint32_t faults_count;
    struct sim_token_rule *rules;
    uint32_t rules_count;
    uint32_t *buckets; /* open addressing, index + 1 */
    uint32_t buckets_mask;
    _Atomic uint64_t *token_windows; /* throttle per token; NULL when no fault wants it */
};

/* Parses |json|; NULL with a sentence in |error| when it is not a good script. "{}" is an empty
 * one. The caller holds the one reference. Latencies that it does not name stay those of |base|
 * (may be NULL). */
struct sim_script *sim_script_parse(const char *json, size_t bytes, const struct sim_script *base,
                                    int64_t now_ms, char error[SIM_SCRIPT_ERROR_BYTES]);
struct sim_script *sim_script_ref(struct sim_script *s);
void sim_script_unref(struct sim_script *s); /* NULL is fine */

/* A fault of |kind| in force for |provider| now, or NULL. Does not count it. */
struct sim_fault *sim_script_active(struct sim_script *s, enum sim_fault_kind kind,
                                    enum sim_provider_id provider, int64_t now_ms);
/* The same, drawn with its rate and counted. */
struct sim_fault *sim_script_draw(struct sim_script *s, enum sim_fault_kind kind,
                                  enum sim_provider_id provider, int64_t now_ms,
                                  struct sim_rng *rng);

/* Before the provider looks at a request: true when a storm has answered it. */
bool sim_script_before(struct sim_script *s, enum sim_provider_id provider, const struct sim_ctx *c,
                       struct sim_answer *a);
/* After the provider would accept it: dead tokens, token rules, injected answers, throttles. */
void sim_script_after(struct sim_script *s, enum sim_provider_id provider, const struct sim_ctx *c,
                      struct sim_answer *a);

const char *sim_fault_kind_name(enum sim_fault_kind kind);
