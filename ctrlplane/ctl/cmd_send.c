/* belfryctl send and bench: a producer's side of the API. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "belfry/base/histogram.h"
#include "belfry/base/time.h"
#include "ctl/ctl.h"

#define BENCH_CONNECTIONS_MAX 256u
#define BENCH_COUNT_MAX       10000000u
#define PROGRESS_NS           UINT64_C(500000000)

/* ---- send ---- */

static void put_member(struct bf_out *o, const char *name)
{
    if (o->len > 1)
        bf_out_text(o, ",");
    bf_out_cstr(o, name);
    bf_out_text(o, ":");
}

static void put_text_option(struct bf_args *args, const char *option, const char *member,
                            struct bf_out *o)
{
    const char *value = bf_args_option(args, option);
    if (!value)
        return;
    put_member(o, member);
    bf_out_cstr(o, value);
}

/* --user once is user_id, more often recipients. */
static void put_users(struct bf_args *args, struct bf_out *o)
{
    const char *first = bf_args_option(args, "user");
    const char *next = first ? bf_args_option(args, "user") : NULL;
    if (!first)
        return;
    put_member(o, next ? "recipients" : "user_id");
    if (!next) {
        bf_out_cstr(o, first);
        return;
    }
    bf_out_text(o, "[");
    bf_out_cstr(o, first);
    for (; next; next = bf_args_option(args, "user")) {
        bf_out_text(o, ",");
        bf_out_cstr(o, next);
    }
    bf_out_text(o, "]");
}

/* The event's JSON; false after saying what is wrong with the options. */
static bool write_event(struct bf_args *args, struct bf_out *o)
{
    const char *type = bf_args_option(args, "type");
    const char *data = bf_args_option(args, "data");
    uint64_t ttl_s = 0;
    bf_out_text(o, "{");
    put_users(args, o);
    put_text_option(args, "topic", "topic", o);
    if (bf_args_flag(args, "broadcast")) {
        put_member(o, "broadcast");
        bf_out_text(o, "true");
    }
    if (o->len == 1)
        return bf_ctl_fail(false, "to whom? --user U, --topic T or --broadcast");
    put_member(o, "type");
    bf_out_cstr(o, type ? type : "message");
    put_text_option(args, "title", "title", o);
    put_text_option(args, "body", "body", o);
    put_text_option(args, "category", "category", o);
    put_text_option(args, "priority", "priority", o);
    put_text_option(args, "action-url", "action_url", o);
    put_text_option(args, "collapse-key", "collapse_key", o);
    put_text_option(args, "idempotency-key", "idempotency_key", o);
    if (data) {
        put_member(o, "data");
        bf_out_text(o, data);
    }
    if (!bf_args_number(args, "ttl", 1, 315360000, &ttl_s))
        return false;
    if (ttl_s > 0) {
        put_member(o, "ttl");
        bf_out_uint(o, ttl_s);
    }
    if (bf_args_flag(args, "transient")) {
        put_member(o, "transient");
        bf_out_text(o, "true");
    }
    bf_out_text(o, "}");
    return bf_args_done(args);
}

int bf_ctl_send(struct bf_ctl *ctl, struct bf_args *args)
{
    struct bf_out o = {0};
    struct bf_reply reply;
    size_t len;
    if (!write_event(args, &o)) {
        bf_out_free(&o);
        return BF_CTL_USAGE;
    }
    char *body = bf_out_take(&o, &len);
    bool reached = body && bf_ctl_call(ctl, "POST", "/v1/notifications", body, &reply);
    free(body);
    if (!reached)
        return BF_CTL_FAILED;
    int code = BF_CTL_OK;
    if (reply.status != 202)
        code = bf_ctl_refused(&reply);
    else if (ctl->is_json)
        bf_ctl_print_body(&reply);
    else
        printf("accepted %s; belfryctl trace %s shows what becomes of it\n",
               bf_json_text(yyjson_doc_get_root(reply.json), "notification_id"),
               bf_json_text(yyjson_doc_get_root(reply.json), "notification_id"));
    bf_reply_free(&reply);
    return code;
}

/* ---- bench ---- */

struct bench {
    struct bf_ctl *ctl;
    char *body;
    uint64_t count;
    _Atomic uint64_t taken, accepted, refused;
    _Atomic bool failed;
    struct bf_hist latency_us; /* several writers: added to as bf_stage_add does */
    pthread_mutex_t lock;
};

static void note(struct bench *b, uint64_t us, int status)
{
    pthread_mutex_lock(&b->lock);
    bf_hist_add(&b->latency_us, us);
    pthread_mutex_unlock(&b->lock);
    atomic_fetch_add(status == 202 ? &b->accepted : &b->refused, 1);
}

/* One connection: post, wait, again. */
static void *bench_main(void *arg)
{
    struct bench *b = arg;
    struct bf_link *link = bf_link_open(b->ctl, false);
    if (!link)
        atomic_store(&b->failed, true);
    while (link && !atomic_load(&b->failed) && atomic_fetch_add(&b->taken, 1) < b->count) {
        uint64_t began = bf_mono_ns();
        int status = bf_link_call(link, "POST", "/v1/notifications", b->body, NULL);
        if (status < 0)
            atomic_store(&b->failed, true);
        else
            note(b, (bf_mono_ns() - began) / 1000, status);
    }
    bf_link_close(link);
    return NULL;
}

static bool write_request(struct bench *b, const char *user)
{
    struct bf_out body = {0};
    size_t len;
    bf_out_text(&body, "{\"type\":\"bench\",\"user_id\":");
    bf_out_cstr(&body, user);
    bf_out_text(&body,
                ",\"title\":\"Bench\",\"body\":\"One of many notifications of a short load\","
                "\"data\":{\"n\":1}}");
    bf_out_raw(&body, "", 1);
    b->body = bf_out_take(&body, &len);
    return b->body != NULL;
}

/* Progress on stderr until all are answered. */
static void watch(struct bench *b, uint64_t began)
{
    while (!atomic_load(&b->failed)) {
        uint64_t done = atomic_load(&b->accepted) + atomic_load(&b->refused);
        fprintf(stderr, "\r%llu of %llu, %.0f/s ", (unsigned long long)done,
                (unsigned long long)b->count,
                (double)done * 1e9 / (double)(bf_mono_ns() - began + 1));
        if (done >= b->count)
            break;
        nanosleep(&(struct timespec){.tv_nsec = (long)PROGRESS_NS / 5}, NULL);
    }
    fputc('\n', stderr);
}

static int report(const struct bench *b, double seconds)
{
    const char *format = b->ctl->is_json
                             ? "{\"accepted\":%llu,\"refused\":%llu,\"per_s\":%.0f,\"p50_us\":%llu,"
                               "\"p99_us\":%llu,\"max_us\":%llu}\n"
                             : "%llu accepted, %llu refused, %.0f/s; latency p50 %llu us, p99 %llu "
                               "us, max %llu us\n";
    printf(format, (unsigned long long)atomic_load(&b->accepted),
           (unsigned long long)atomic_load(&b->refused),
           (double)atomic_load(&b->latency_us.count) / seconds,
           (unsigned long long)bf_hist_quantile(&b->latency_us, 0.5),
           (unsigned long long)bf_hist_quantile(&b->latency_us, 0.99),
           (unsigned long long)atomic_load(&b->latency_us.max));
    if (atomic_load(&b->failed))
        return bf_ctl_fail(BF_CTL_FAILED,
                           "a connection broke; the figures are of what was answered");
    return atomic_load(&b->refused) ? BF_CTL_FAILED : BF_CTL_OK;
}

/* The user that the load is for. */
static int make_user(struct bf_ctl *ctl, const char *user)
{
    struct bf_out path = {0};
    struct bf_reply reply;
    size_t len;
    bf_out_text(&path, "/v1/users/");
    bf_out_percent(&path, user);
    char *text = bf_out_take(&path, &len);
    bool reached = text && bf_ctl_call(ctl, "PUT", text, "{}", &reply);
    free(text);
    if (!reached)
        return BF_CTL_FAILED;
    int code = reply.status < 300 ? BF_CTL_OK : bf_ctl_refused(&reply);
    bf_reply_free(&reply);
    return code;
}

int bf_ctl_bench(struct bf_ctl *ctl, struct bf_args *args)
{
    const char *user = bf_args_option(args, "user");
    uint64_t connections = 16;
    pthread_t threads[BENCH_CONNECTIONS_MAX];
    struct bench *b = calloc(1, sizeof(*b));
    if (!b)
        return BF_CTL_FAILED;
    b->ctl = ctl;
    b->count = 10000;
    pthread_mutex_init(&b->lock, NULL);
    int code = BF_CTL_USAGE;
    if (bf_args_number(args, "count", 1, BENCH_COUNT_MAX, &b->count) &&
        bf_args_number(args, "connections", 1, BENCH_CONNECTIONS_MAX, &connections) &&
        bf_args_done(args))
        code = make_user(ctl, user ? user : "bench");
    if (code == BF_CTL_OK && !write_request(b, user ? user : "bench"))
        code = BF_CTL_FAILED;
    if (code == BF_CTL_OK) {
        uint64_t began = bf_mono_ns();
        for (uint64_t i = 0; i < connections; i++)
            pthread_create(&threads[i], NULL, bench_main, b);
        watch(b, began);
        for (uint64_t i = 0; i < connections; i++)
            pthread_join(threads[i], NULL);
        code = report(b, (double)(bf_mono_ns() - began) / 1e9);
    }
    free(b->body);
    free(b);
    return code;
}
