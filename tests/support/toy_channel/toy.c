/* See toy.h. */
#include "toy_channel/toy.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <yyjson.h>

#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "store/store.h"

#define SENT_MAX 4096u

struct prepared {
    const struct bf_turn *turn; /* whose flush lets it go */
    struct toy_sent sent;
};

/* One a process: a test has one node. */
static struct toy {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    struct bf_channel_env env;
    struct prepared prepared[SENT_MAX];
    uint32_t prepared_count;
    struct toy_sent sent[SENT_MAX];
    uint32_t sent_count, taken_count;
    char dead[32];
    bool is_ready;
} toy = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* What an event says: its title. */
struct toy_content {
    struct bf_content content; /* first */
    char title[32];
};

static int start(const struct bf_channel_env *env, struct bf_channel_state **ret, char *err,
                 size_t n)
{
    (void)err, (void)n;
    toy.env = *env;
    toy.prepared_count = toy.sent_count = toy.taken_count = 0;
    toy.is_ready = true;
    toy.dead[0] = '\0';
    *ret = (struct bf_channel_state *)&toy;
    return 0;
}

static void stop(struct bf_channel_state *state)
{
    (void)state;
}

static int open_content(struct bf_channel_state *state, const struct bf_content_source *source,
                        struct bf_content **ret, char why[BF_WHY_BYTES])
{
    (void)state;
    char json[512];
    int len = snprintf(json, sizeof(json), "{%.*s}", (int)source->fragment.len,
                       source->fragment.len ? source->fragment.at : "");
    yyjson_doc *doc = yyjson_read(json, (size_t)len, 0);
    const char *title = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "title"));
    struct toy_content *content = title ? calloc(1, sizeof(*content)) : NULL;
    if (content)
        snprintf(content->title, sizeof(content->title), "%s", title);
    else
        snprintf(why, BF_WHY_BYTES, "bad_event: it has no title");
    yyjson_doc_free(doc);
    *ret = content ? &content->content : NULL;
    return content ? 0 : BF_ERR_MALFORMED;
}

static void close_content(struct bf_content *content)
{
    free(content);
}

static bool is_dead(struct bf_bytes user)
{
    return user.len == strlen(toy.dead) && memcmp(user.at, toy.dead, user.len) == 0;
}

static struct bf_endpoint endpoint_at(struct bf_uid uid, uint8_t number)
{
    struct bf_endpoint endpoint = {.account = BF_BYTES("toy"), .address = uid.user, .kind = number};
    memset(endpoint.id.bytes, 0x70 + number, sizeof(endpoint.id.bytes));
    memcpy(endpoint.id.bytes, uid.user.at, uid.user.len < 12 ? uid.user.len : 12);
    endpoint.state = is_dead(uid.user) ? BF_ENDPOINT_DEAD : BF_ENDPOINT_LIVE;
    return endpoint;
}

static int endpoints(struct bf_channel_state *state, const struct bf_turn *turn, struct bf_uid uid,
                     bf_endpoint_fn each, void *arg)
{
    (void)state, (void)turn;
    uint8_t count = uid.user.len > 4 && memcmp(uid.user.at, "both", 4) == 0 ? 2 : 1;
    int rc = 0;
    for (uint8_t i = 0; i < count && rc == 0; i++) {
        const struct bf_endpoint endpoint = endpoint_at(uid, i);
        rc = each(arg, &endpoint);
    }
    return rc;
}

struct wanted {
    const struct bf_id *id;
    bf_endpoint_fn use;
    void *arg;
    int rc;
};

static int use_wanted(void *arg, const struct bf_endpoint *endpoint)
{
    struct wanted *w = arg;
    if (!bf_id_is_equal(&endpoint->id, w->id))
        return 0;
    w->rc = w->use(w->arg, endpoint);
    return 1;
}

static int endpoint(struct bf_channel_state *state, const struct bf_turn *turn,
                    const struct bf_leg_row *row, const struct bf_content *content,
                    bf_endpoint_fn use, void *arg, char why[BF_WHY_BYTES])
{
    (void)content, (void)why;
    struct wanted w = {.id = &row->endpoint_id, .use = use, .arg = arg, .rc = BF_ERR_NOT_FOUND};
    (void)endpoints(state, turn, row->uid, use_wanted, &w);
    return w.rc;
}

static int pool(struct bf_channel_state *state, struct bf_sending *sending, struct bf_bytes account,
                struct bf_pool_info *ret, char why[BF_WHY_BYTES])
{
    (void)state, (void)sending, (void)account, (void)why;
    *ret = (struct bf_pool_info){.id = TOY_POOL, .is_ready = toy.is_ready};
    return 0;
}

static int launch(struct bf_channel_state *state, struct bf_sending *s, char why[BF_WHY_BYTES])
{
    (void)state, (void)why;
    pthread_mutex_lock(&toy.lock);
    bool has_room = toy.prepared_count < SENT_MAX;
    if (has_room) {
        struct prepared *p = &toy.prepared[toy.prepared_count++];
        *p = (struct prepared){.turn = s->turn,
                               .sent = {.attempt = s->attempt,
                                        .message_id = s->row->message_id,
                                        .endpoint_id = s->endpoint->id,
                                        .number = s->row->attempts}};
        bf_format(p->sent.user, sizeof(p->sent.user), "%.*s", (int)s->row->uid.user.len,
                  s->row->uid.user.at);
        bf_format(p->sent.title, sizeof(p->sent.title), "%s",
                  ((struct toy_content *)s->content)->title);
    }
    pthread_mutex_unlock(&toy.lock);
    return has_room ? 0 : BF_ERR_FULL;
}

static void flush(struct bf_channel_state *state, struct bf_turn *turn)
{
    (void)state;
    uint32_t kept = 0;
    pthread_mutex_lock(&toy.lock);
    for (uint32_t i = 0; i < toy.prepared_count; i++) {
        struct prepared *p = &toy.prepared[i];
        if (p->turn != turn) {
            toy.prepared[kept++] = *p;
            continue;
        }
        p->sent.is_recorded = bf_batch_count(turn->batch) == 0;
        toy.sent[toy.sent_count++ % SENT_MAX] = p->sent;
    }
    toy.prepared_count = kept;
    pthread_cond_broadcast(&toy.changed);
    pthread_mutex_unlock(&toy.lock);
}

static void classify(const struct bf_attempt *attempt, const struct bf_provider_answer *answer,
                     struct bf_verdict *ret)
{
    (void)attempt;
    *ret = (struct bf_verdict){.class = BF_CLASS_OK, .action = BF_ACTION_DONE};
    snprintf(ret->reason, sizeof(ret->reason), "toy_%u", answer->status);
    if (answer->status == 410)
        *ret = (struct bf_verdict){.class = BF_CLASS_DEAD,
                                   .action = BF_ACTION_DROP,
                                   .flags = BF_VERDICT_FORGET_ENDPOINT,
                                   .reason = "toy_gone"};
    else if (answer->status == 400)
        *ret = (struct bf_verdict){.class = BF_CLASS_BAD,
                                   .action = BF_ACTION_DROP,
                                   .flags = BF_VERDICT_PAGE,
                                   .reason = "toy_bad"};
    else if (answer->status == 429)
        *ret = (struct bf_verdict){.class = BF_CLASS_RETRY,
                                   .action = BF_ACTION_RETRY,
                                   .flags = BF_VERDICT_SLOW_ENDPOINT,
                                   .delay_ms = 60000,
                                   .reason = "toy_slow"};
    else if (answer->status == 503)
        *ret = (struct bf_verdict){.class = BF_CLASS_RETRY,
                                   .action = BF_ACTION_RETRY,
                                   .flags = BF_VERDICT_FAULT,
                                   .reason = "toy_later"};
}

static void heed(struct bf_channel_state *state, struct bf_turn *turn,
                 const struct bf_attempt *attempt, const struct bf_verdict *verdict)
{
    (void)state, (void)turn;
    if (verdict->flags & BF_VERDICT_FORGET_ENDPOINT)
        snprintf(toy.dead, sizeof(toy.dead), "%.*s", (int)attempt->row->uid.user.len,
                 attempt->row->uid.user.at);
}

static const char *kind_name(uint8_t kind)
{
    return kind == 0 ? "first" : "second";
}

static uint32_t pools(struct bf_channel_state *state,
                      void (*each)(void *arg, const struct bf_pool_row *row), void *arg)
{
    (void)state;
    const struct bf_pool_row row = {.pool = TOY_POOL,
                                    .kind = "first",
                                    .account = "toy",
                                    .authority = "",
                                    .failover = "",
                                    .why = toy.is_ready ? "" : "nobody gave it a key",
                                    .is_ready = toy.is_ready};
    each(arg, &row);
    return 1;
}

const struct bf_channel_ops toy_ops = {
    .start = start,
    .stop = stop,
    .open = open_content,
    .close = close_content,
    .endpoints = endpoints,
    .endpoint = endpoint,
    .pool = pool,
    .launch = launch,
    .flush = flush,
    .classify = classify,
    .heed = heed,
    .kind_name = kind_name,
    .pools = pools,
};

/* ---- the provider's side ---- */

bool toy_take(struct toy_sent *ret)
{
    struct timespec until;
    int rc = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    pthread_mutex_lock(&toy.lock);
    while (toy.taken_count == toy.sent_count && rc == 0)
        rc = pthread_cond_timedwait(&toy.changed, &toy.lock, &until);
    bool has_one = toy.taken_count < toy.sent_count;
    if (has_one)
        *ret = toy.sent[toy.taken_count++ % SENT_MAX];
    pthread_mutex_unlock(&toy.lock);
    return has_one;
}

bool toy_is_quiet(void)
{
    pthread_mutex_lock(&toy.lock);
    bool is_quiet = toy.taken_count == toy.sent_count;
    pthread_mutex_unlock(&toy.lock);
    return is_quiet;
}

void toy_answer(uint64_t attempt, unsigned status)
{
    const struct bf_provider_answer answer = {.attempt = attempt,
                                              .channel = BF_CHANNEL_WEBHOOK,
                                              .end = BF_ANSWERED,
                                              .status = (uint16_t)status,
                                              .retry_after_s = BF_NO_RETRY_AFTER,
                                              .answer_us = 1500};
    toy.env.answered(toy.env.arg, &answer);
}

void toy_set_ready(bool is_ready)
{
    toy.is_ready = is_ready;
}

const char *toy_dead(void)
{
    return toy.dead;
}
