/* Fault script, decisions: see sim_script.h. Parsing is sim_script_parse.c. */
#include "sim_script.h"

#include <stdlib.h>
#include <xxhash.h>

#include "sim_provider.h"

#define WINDOW_MS 100 /* a throttle counts in windows this long: smooth, yet cheap */

static const char *const kind_names[SIM_FAULT_KIND_COUNT] = {
    "throttle",  "storm",    "answer",        "dead",   "goaway",   "stream_limit",
    "half_open", "reset",    "refuse_stream", "stall",  "nonsense", "endless_headers",
    "refuse",    "slow_tls", "wrong_alpn",    "outage",
};

const char *sim_fault_kind_name(enum sim_fault_kind kind)
{
    return kind_names[kind];
}

struct sim_script *sim_script_ref(struct sim_script *s)
{
    /* relaxed: the caller holds a reference already, nothing is read through this count */
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void sim_script_unref(struct sim_script *s)
{
    /* acq_rel: the last holder frees after everybody's last access */
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    free(s->rules);
    free(s->buckets);
    free((void *)s->token_windows);
    free(s);
}

static void count_fired(struct sim_fault *f)
{
    atomic_fetch_add_explicit(&f->fired, 1, memory_order_relaxed); /* a statistic */
}

/* Counts it, unless it has been met |times| times already. */
static bool takes_turn(struct sim_fault *f)
{
    if (f->times == 0) {
        count_fired(f);
        return true;
    }
    uint64_t fired = atomic_load_explicit(&f->fired, memory_order_relaxed);
    do {
        if (fired >= f->times)
            return false;
        /* relaxed: the count is all there is; workers share nothing else by it */
    } while (!atomic_compare_exchange_weak_explicit(&f->fired, &fired, fired + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static bool in_force(const struct sim_script *s, const struct sim_fault *f,
                     enum sim_fault_kind kind, enum sim_provider_id provider, int64_t now_ms)
{
    int64_t age_ms = now_ms - s->began_ms;
    return f->kind == kind && (f->providers >> provider & 1u) && age_ms >= f->start_ms &&
           (f->stop_ms == 0 || age_ms < f->stop_ms);
}

struct sim_fault *sim_script_active(struct sim_script *s, enum sim_fault_kind kind,
                                    enum sim_provider_id provider, int64_t now_ms)
{
    if (!(s->kinds >> kind & 1u))
        return NULL;
    for (uint32_t i = 0; i < s->faults_count; i++)
        if (in_force(s, &s->faults[i], kind, provider, now_ms))
            return &s->faults[i];
    return NULL;
}

struct sim_fault *sim_script_draw(struct sim_script *s, enum sim_fault_kind kind,
                                  enum sim_provider_id provider, int64_t now_ms,
                                  struct sim_rng *rng)
{
    struct sim_fault *f = sim_script_active(s, kind, provider, now_ms);
    if (!f || (f->rate < 1 && sim_rng_unit(rng) >= f->rate))
        return NULL;
    count_fired(f);
    return f;
}

/* ---- answers spoilt: one small function a kind ---- */

static void fail(const struct sim_script *s, enum sim_provider_id provider, struct sim_answer *a,
                 uint16_t status, const char *reason, int64_t timestamp_ms)
{
    a->fields_count =
        a->fields_count && provider == SIM_APNS ? 1 : 0; /* apns-id stays, Location goes */
    sim_providers[provider].fail(a, status, reason, timestamp_ms ? timestamp_ms : s->began_ms);
}

bool sim_script_before(struct sim_script *s, enum sim_provider_id provider, const struct sim_ctx *c,
                       struct sim_answer *a)
{
    struct sim_fault *f = sim_script_draw(s, SIM_STORM, provider, c->now_ms, c->rng);
    if (!f)
        return false;
    a->retry_after_s = f->retry_after_s;
    fail(s, provider, a, f->status ? f->status : 503, f->reason, 0);
    return true;
}

static const struct sim_token_rule *rule_of(const struct sim_script *s,
                                            enum sim_provider_id provider, struct sim_slice token)
{
    if (s->rules_count == 0)
        return NULL;
    uint32_t at = (uint32_t)XXH3_64bits_withSeed(token.p, token.n, provider) & s->buckets_mask;
    for (; s->buckets[at]; at = (at + 1) & s->buckets_mask) {
        const struct sim_token_rule *r = &s->rules[s->buckets[at] - 1];
        if (r->provider == provider && sim_slice_is(token, r->token))
            return r;
    }
    return NULL;
}

static bool apply_rule(struct sim_script *s, enum sim_provider_id provider, struct sim_answer *a)
{
    const struct sim_token_rule *r = rule_of(s, provider, a->token);
    if (!r)
        return false;
    if (r->status || r->reason[0])
        fail(s, provider, a, r->status, r->reason, r->timestamp_ms);
    else if (r->topic[0] && !sim_slice_is(a->topic, r->topic))
        fail(s, provider, a, 0,
             provider == SIM_FCM ? "SENDER_ID_MISMATCH" : "DeviceTokenNotForTopic", 0);
    return true; /* a token with a rule is neither dead nor alive by hash */
}

static bool apply_dead(struct sim_script *s, enum sim_provider_id provider, const struct sim_ctx *c,
                       struct sim_answer *a)
{
    struct sim_fault *f = sim_script_active(s, SIM_DEAD, provider, c->now_ms);
    if (!f)
        return false;
    uint64_t hash = XXH3_64bits_withSeed(a->token.p, a->token.n, s->seed);
    if ((double)(hash >> 11) * 0x1p-53 >= f->rate)
        return false;
    count_fired(f);
    fail(s, provider, a, f->status,
         f->reason[0] || f->status ? f->reason : sim_providers[provider].dead, f->timestamp_ms);
    return true;
}

static bool apply_answer(struct sim_script *s, enum sim_provider_id provider,
                         const struct sim_ctx *c, struct sim_answer *a)
{
    if (!(s->kinds >> SIM_ANSWER & 1u))
        return false;
    for (uint32_t i = 0; i < s->faults_count; i++) {
        struct sim_fault *f = &s->faults[i];
        if (!in_force(s, f, SIM_ANSWER, provider, c->now_ms) ||
            (f->token[0] && !sim_slice_is(a->token, f->token)) ||
            (f->rate < 1 && sim_rng_unit(c->rng) >= f->rate) || !takes_turn(f))
            continue;
        a->retry_after_s = f->retry_after_s;
        fail(s, provider, a, f->status, f->reason, f->timestamp_ms);
        return true;
    }
    return false;
}

/* Takes one place in the current window; false when it is full. */
static bool window_take(_Atomic uint64_t *word, uint64_t tag, uint64_t places)
{
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed), next;
    do {
        uint64_t used = old >> 24 == tag ? old & 0xffffff : 0;
        if (used >= places)
            return false;
        next = tag << 24 | (used + 1);
        /* relaxed: the word is all there is; nothing else is published by it */
    } while (!atomic_compare_exchange_weak_explicit(word, &old, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

static bool is_throttled(struct sim_script *s, struct sim_fault *f, const struct sim_ctx *c,
                         const struct sim_answer *a)
{
    /* below 10/s a window is a second; a fraction is one place in its own longer window */
    int64_t window_ms = f->per_s >= 10  ? WINDOW_MS
                        : f->per_s >= 1 ? 1000
                                        : (int64_t)(1000 / f->per_s);
    uint64_t places = f->per_s >= 10  ? (uint64_t)(f->per_s / 10)
                      : f->per_s >= 1 ? (uint64_t)f->per_s
                                      : 1;
    uint64_t slot = (uint64_t)(c->now_ms / window_ms);
    if (!f->per_token)
        return !window_take(&f->window, slot & 0xffffffffff, places);
    uint64_t hash = XXH3_64bits_withSeed(a->token.p, a->token.n, s->seed ^ 0x7468726f74746c65ull);
    return !window_take(&s->token_windows[hash % SIM_TOKEN_WINDOWS],
                        (slot << 20 | hash >> 44) & 0xffffffffff, places);
}

static void apply_throttle(struct sim_script *s, enum sim_provider_id provider,
                           const struct sim_ctx *c, struct sim_answer *a)
{
    struct sim_fault *f = sim_script_active(s, SIM_THROTTLE, provider, c->now_ms);
    if (!f || !is_throttled(s, f, c, a))
        return;
    count_fired(f);
    a->retry_after_s = f->retry_after_s;
    fail(s, provider, a, f->status ? f->status : 429,
         f->reason[0] ? f->reason : sim_providers[provider].throttled, 0);
}

void sim_script_after(struct sim_script *s, enum sim_provider_id provider, const struct sim_ctx *c,
                      struct sim_answer *a)
{
    bool ruled = apply_rule(s, provider, a);
    if (a->status < 300 && !ruled)
        apply_dead(s, provider, c, a);
    if (a->status < 300)
        apply_answer(s, provider, c, a);
    if (a->status < 300)
        apply_throttle(s, provider, c, a);
}
