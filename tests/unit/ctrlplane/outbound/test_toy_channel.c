/*
 * Proves that a channel is a folder and a row (CHN-1): the toy of tests/support/toy_channel, which
 * this test puts into the table beside push, gets queue, retry, breaker, dead letters, redrive,
 * status and metrics, over a restart too, and nothing outside of its folder knows it.
 */
#define BF_CHANNELS_DEF "toy_channel/channels.def"
#include "channels/table/channels.c"

#include "belfry/conf/conf_load.h"

#include "../log/log_fixture.h"

#include <stdio.h>

#include "toy_channel/toy.c"
#include "admin/channel_status.h"
#include "api/status.h"
#include "belfry/base/time.h"
#include "crypto/sign.h"
#include "crypto/vault.h"
#include "crypto/webpush.h"
#include "fanout/core_outbound.h"
#include "fanout/core_state.h"
#include "config/services.h"
#include "pipeline/open_event.h"

static struct bf_core *core;
static struct bf_channels channels;
static struct bf_services services;
static struct bf_vault vault;
static _Atomic uint32_t settled;

/* As after the census of a dataplane that nobody is connected to. */
static int meet(struct bf_shard *shard, void *arg)
{
    (void)arg;
    cr_assert_eq(bf_conn_table_init(&shard->conns, 1), 0);
    shard->presence_known = true;
    bf_outbound_attached(&shard->outbound, false);
    return 0;
}

static void core_open(void)
{
    char err[512] = "";
    const uint8_t key[BF_VAULT_KEY_BYTES] = {7};
    bf_vault_init(&vault, key);
    cr_assert_eq(bf_core_create(&conf, store, logp, &core), 0);
    core->pool_reports = bf_pool_reports_create();
    const struct bf_channel_env env = {.conf = &conf,
                                       .store = store,
                                       .vault = &vault,
                                       .shards = conf.shards,
                                       .answered = bf_core_answered,
                                       .arg = core};
    cr_assert_eq(bf_channels_start(&env, &channels, err, sizeof(err)), 0, "%s", err);
    cr_assert_eq(bf_core_set_channels(core, &channels), 0);
    services = (struct bf_services){
        .first_conf = &conf, .store = store, .log = logp, .core = core, .channels = &channels};
    atomic_store(&services.conf, &conf);
    for (uint32_t i = 0; i < conf.shards; i++)
        cr_assert_eq(bf_core_run_on(core, i, meet, NULL), 0);
}

static void core_close(void)
{
    bf_core_requeue_pushes(core);
    struct bf_pool_reports *reports = core->pool_reports;
    bf_core_destroy(core);
    bf_channels_stop(&channels);
    bf_pool_reports_destroy(reports);
}

static void start_all(void)
{
    tmp_dir_make(dir, sizeof(dir));
    cr_assert_eq(bf_conf_set_defaults(&conf), 0);
    free((char *)(uintptr_t)conf.state_dir); /* log_open has its own */
    free((char *)(uintptr_t)conf.log_engine);
    conf.shards = 2;
    log_open();
    core_open();
}

static void stop_all(void)
{
    core_close();
    log_close();
    tmp_dir_remove(dir);
}

TestSuite(toy_channel, .init = start_all, .fini = stop_all, .timeout = 120);

/* ---- events ---- */

static struct bf_uid uid_of(const char *user)
{
    return (struct bf_uid){BF_BYTES(""), {user, strlen(user)}};
}

static void on_settled(struct bf_open_event *open)
{
    atomic_fetch_add(&settled, 1);
    bf_open_event_free(open);
}

struct offered {
    struct bf_open_event *open;
    const char *user;
    struct bf_leg_row row;
    struct bf_content *content;
    struct bf_shard *shard;
};

static int offer_to(void *arg, const struct bf_endpoint *endpoint)
{
    struct offered *f = arg;
    f->row.kind = BF_LEG_SEND;
    f->row.endpoint_id = endpoint->id;
    bf_leg_message_id(&f->row);
    struct bf_offer offer = {.row = f->row, .open = f->open};
    bf_outbound_send(&f->shard->outbound, &offer, endpoint, f->content);
    return 0;
}

/* What fanout does with a leg that is decided to go now. */
static int offer_leg(struct bf_shard *shard, void *arg)
{
    struct offered *f = arg;
    const struct bf_event *event = f->open->event;
    struct bf_outbound *o = &shard->outbound;
    struct bf_channel_state *toy_state = bf_outbound_channel(o, BF_CHANNEL_WEBHOOK);
    const struct bf_channel_ops *ops = bf_channel_ops_of(BF_CHANNEL_WEBHOOK);
    char why[BF_WHY_BYTES];
    const struct bf_event_row row = {.event_id = event->id,
                                     .accepted_ms = event->created_ms,
                                     .expires_ms = event->created_ms + 86400000,
                                     .target = BF_TARGET_USERS,
                                     .recipient_count = 1,
                                     .recipients = event->recipients};
    bf_batch_put_event_row(shard->batch, &row);
    f->shard = shard;
    f->row = (struct bf_leg_row){.channel = BF_CHANNEL_WEBHOOK,
                                 .lane = event->lane,
                                 .partition = bf_store_partition_of(store, uid_of(f->user)),
                                 .uid = uid_of(f->user),
                                 .event_id = event->id,
                                 .created_ms = event->created_ms,
                                 .expires_ms = event->created_ms + 86400000};
    const struct bf_content_source source = {.fragment = event->fragment};
    cr_assert_eq(ops->open(toy_state, &source, &f->content, why), 0, "%s", why);
    ops->endpoints(toy_state, &shard->turn, uid_of(f->user), offer_to, f);
    ops->close(f->content);
    shard->outbound.node.host->settle(&shard->turn, f->open); /* our own leg */
    return 0;
}

/* Sends an event to |user| by the toy; its id. */
static struct bf_id send_by_toy(const char *user, const char *title)
{
    static unsigned number;
    struct bf_event *event;
    struct bf_problem problem;
    struct bf_event_meta meta = {.source = BF_SOURCE_HTTP, .accepted_ms = bf_wall_ms()};
    char json[300];
    bool created;
    bf_core_put_user(core, uid_of(user), BF_BYTES("{}"), &created);
    snprintf(json, sizeof(json),
             "{\"id\":\"%u\",\"type\":\"t\",\"title\":\"%s\",\"user_id\":\"%s\"}", ++number, title,
             user);
    cr_assert_eq(bf_event_parse((struct bf_bytes){json, strlen(json)}, &meta, &event, &problem), 0,
                 "%s", problem.detail);
    struct bf_open_event *open = bf_open_event_create(event, 1, BF_BYTES(""), BF_BYTES(""));
    struct bf_id id = event->id;
    open->settled = on_settled;
    struct offered f = {.open = open, .user = user};
    cr_assert_eq(bf_core_run_on(core, bf_core_shard_of(core, uid_of(user))->index, offer_leg, &f),
                 0);
    return id;
}

static struct toy_sent take(void)
{
    struct toy_sent sent;
    cr_assert(toy_take(&sent), "nothing left");
    return sent;
}

/* ---- what people see ---- */

static char seen[1 << 17];

static const char *status_of(struct bf_id event)
{
    struct bf_out o = {0};
    size_t len;
    cr_assert_eq(bf_status_write(store, &event, (struct bf_bytes){0}, &o), 0);
    char *text = bf_out_take(&o, &len);
    snprintf(seen, sizeof(seen), "%.*s", (int)len, text);
    free(text);
    return seen;
}

static const char *node_status(bool is_metrics)
{
    struct bf_channels_status status;
    struct bf_out o = {0};
    size_t len;
    cr_assert_eq(bf_channels_status_take(&services, &status), 0);
    if (is_metrics) {
        bf_channels_status_put_metrics(&o, &status);
        bf_channels_put_counters(&o);
    } else {
        bf_channels_status_put_json(&o, &status);
    }
    bf_channels_status_free(&status);
    char *text = bf_out_take(&o, &len);
    cr_assert_lt(len, sizeof(seen));
    snprintf(seen, sizeof(seen), "%.*s", (int)len, text);
    free(text);
    return seen;
}

/* Waits until |what|() holds |part|. */
#define UNTIL(text, part)                                                                          \
    do {                                                                                           \
        int waits_ = 0;                                                                            \
        while (!strstr((text), (part)) && ++waits_ < 5000)                                         \
            usleep(1000);                                                                          \
        cr_assert(waits_ < 5000, "no %s in %s", (part), (text));                                   \
    } while (0)

static void until_settled(uint32_t count)
{
    for (int i = 0; i < 5000 && atomic_load(&settled) < count; i++)
        usleep(1000);
    cr_assert_eq(atomic_load(&settled), count);
}

/* Makes what waits of a person due now. */
static int make_due(void *arg, const struct bf_leg_row *row)
{
    struct bf_shard *shard = arg;
    struct bf_leg_row now = *row;
    now.not_before_ms = shard->turn.now_ms;
    bf_outbound_put(&shard->outbound, &now);
    return 0;
}

struct due_of {
    const char *user;
};

static int hurry_up(struct bf_shard *shard, void *arg)
{
    const struct due_of *d = arg;
    return bf_store_walk_legs_of(store, uid_of(d->user), NULL, make_due, shard);
}

static void when_due(const char *user)
{
    struct due_of d = {.user = user};
    cr_assert_eq(bf_core_run_on(core, bf_core_shard_of(core, uid_of(user))->index, hurry_up, &d),
                 0);
}

/* ---- tests ---- */

Test(toy_channel, is_in_the_table_beside_push)
{
    cr_assert_eq(bf_channel_ops_of(BF_CHANNEL_WEBHOOK), &toy_ops);
    cr_assert_not_null(bf_channel_ops_of(BF_CHANNEL_PUSH));
    cr_assert_null(bf_channel_ops_of(BF_CHANNEL_EMAIL));
    cr_assert_null(bf_channel_ops_of(BF_CHANNEL_INAPP), "the inbox goes by no provider");
    cr_assert_null(bf_channel_ops_of(200));
}

Test(toy_channel, taken_by_the_provider)
{
    struct bf_id event = send_by_toy("both-of-ann", "hello");
    struct toy_sent first = take(), second = take();
    cr_assert_str_eq(first.user, "both-of-ann");
    cr_assert_str_eq(first.title, "hello");
    cr_assert(first.is_recorded && second.is_recorded, "it left before its batch was written");
    cr_assert_not(bf_id_is_equal(&first.message_id, &second.message_id), "an endpoint each");
    cr_assert_eq(atomic_load(&settled), 0, "the event is open until its attempts are answered");
    toy_answer(first.attempt, 200);
    toy_answer(second.attempt, 204);
    until_settled(1);
    UNTIL(status_of(event),
          "{\"channel\":\"webhook\",\"attempts\":[{\"attempt\":1,\"status\":\"sent\"");
    cr_assert(bf_store_is_leg_done(store, &first.message_id));
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_WEBHOOK, BF_LANE_NORMAL), 0);
    toy_answer(first.attempt, 503); /* nobody waits for it any more */
    UNTIL(node_status(true), "belfry_webhook_orphans_total 1");
}

Test(toy_channel, tried_again)
{
    struct bf_id event = send_by_toy("bob", "again");
    struct toy_sent first = take();
    toy_answer(first.attempt, 503);
    until_settled(1); /* its row is durable */
    UNTIL(status_of(event), "\"status\":\"queued\",\"reason\":\"toy_later\"");
    cr_assert_not_null(strstr(seen, "\"not_before\":"));
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_WEBHOOK, BF_LANE_NORMAL), 1);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_NORMAL), 0);
    when_due("bob");
    struct toy_sent second = take();
    cr_assert(bf_id_is_equal(&first.message_id, &second.message_id));
    cr_assert_neq(first.attempt, second.attempt);
    cr_assert_eq(second.number, 1);
    cr_assert(second.is_recorded);
    toy_answer(second.attempt, 200);
    UNTIL(status_of(event), "{\"attempt\":2,\"status\":\"sent\"");
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_WEBHOOK, BF_LANE_NORMAL), 0);
    UNTIL(node_status(true), "belfry_webhook_retries_total 1");
}

Test(toy_channel, one_endpoint_throttled)
{
    struct bf_id slow = send_by_toy("cid", "slow");
    toy_answer(take().attempt, 429);
    until_settled(1);
    struct bf_id later = send_by_toy("cid", "later"), other = send_by_toy("dan", "now");
    UNTIL(status_of(later), "device_throttled");
    UNTIL(status_of(slow), "toy_slow");
    struct toy_sent sent = take();
    cr_assert_str_eq(sent.user, "dan");
    cr_assert(toy_is_quiet());
    (void)other;
}

Test(toy_channel, breaker)
{
    char user[16];
    struct bf_id last;
    for (int i = 0; i < 40; i++) { /* 20 or so for either shard: each has a breaker */
        snprintf(user, sizeof(user), "e%d", i);
        last = send_by_toy(user, "out");
    }
    for (int i = 0; i < 40; i++)
        toy_answer(take().attempt, 503);
    until_settled(40);
    UNTIL(node_status(false), "\"webhook\":{\"apps\":1,");
    UNTIL(node_status(false), "\"app\":\"toy\",\"kind\":\"first\"");
    UNTIL(node_status(false), "\"breaker\":\"open\"");
    UNTIL(node_status(true), "belfry_webhook_breaker_state{app=\"toy\",kind=\"first\"} 3");
    last = send_by_toy("e0", "waits");
    UNTIL(status_of(last), "breaker_open");
    cr_assert(toy_is_quiet());
    cr_assert_null(strstr(node_status(true), "belfry_push_breaker_state"), "push has no app");
}

Test(toy_channel, not_ready)
{
    toy_set_ready(false);
    struct bf_id event = send_by_toy("fay", "wait");
    UNTIL(status_of(event), "not_ready");
    UNTIL(node_status(true), "belfry_webhook_pool_unready{app=\"toy\",kind=\"first\"} 1");
    UNTIL(node_status(false), "nobody gave it a key");
    UNTIL(node_status(true), "belfry_webhook_queue_depth{lane=\"normal\"} 1");
    cr_assert_not_null(strstr(seen, "belfry_push_queue_depth{lane=\"normal\"} 0"));
    toy_set_ready(true);
    when_due("fay");
    cr_assert_str_eq(take().title, "wait");
}

struct found {
    int count;
    struct bf_dlq_row row;
};

static int keep_letter(void *arg, const struct bf_dlq_row *row)
{
    struct found *f = arg;
    f->row = *row;
    f->count++;
    return 0;
}

Test(toy_channel, dead_letter_and_redrive)
{
    struct found f = {0};
    struct bf_id event = send_by_toy("gil", "letter");
    struct toy_sent sent = take();
    toy_answer(sent.attempt, 400);
    until_settled(1);
    UNTIL(status_of(event), "\"status\":\"failed\",\"reason\":\"toy_bad\"");
    cr_assert_eq(bf_store_walk_dlq(store, BF_CHANNEL_WEBHOOK, 0, keep_letter, &f), 0);
    cr_assert_eq(f.count, 1);
    cr_assert_eq(bf_store_dlq_depth(store, BF_CHANNEL_WEBHOOK), 1);
    UNTIL(node_status(true), "belfry_webhook_dead_lettered_total 1");
    UNTIL(node_status(true), "belfry_webhook_alarms_total 1");
    cr_assert_eq(
        bf_core_redrive_leg(core, BF_CHANNEL_WEBHOOK, f.row.at_ms, &f.row.event_id, f.row.tag), 0);
    cr_assert_eq(bf_store_dlq_depth(store, BF_CHANNEL_WEBHOOK), 0);
    struct toy_sent again = take();
    cr_assert_str_eq(again.title, "letter");
    cr_assert_not(bf_id_is_equal(&again.message_id, &sent.message_id),
                  "somebody asked for it anew");
    toy_answer(again.attempt, 200);
    UNTIL(status_of(event), "\"status\":\"sent\"");
}

Test(toy_channel, dead_endpoint)
{
    struct bf_id event = send_by_toy("hal", "gone");
    toy_answer(take().attempt, 410);
    until_settled(1);
    UNTIL(status_of(event), "\"status\":\"failed\",\"reason\":\"toy_gone\"");
    cr_assert_str_eq(toy_dead(), "hal", "the channel was told");
    cr_assert_eq(bf_store_dlq_depth(store, BF_CHANNEL_WEBHOOK), 0);
}

/* What is out when the process stops waits in the queue, and goes with the next one. */
Test(toy_channel, over_a_restart)
{
    struct bf_id event = send_by_toy("ivy", "later");
    struct toy_sent sent = take();
    core_close();
    log_close();
    until_settled(1);
    log_open();
    core_open();
    UNTIL(status_of(event), "no_receipt");
    struct toy_sent again = take();
    cr_assert(bf_id_is_equal(&again.message_id, &sent.message_id));
    cr_assert_eq(again.attempt, sent.attempt, "the same attempt: a provider can tell");
    toy_answer(again.attempt, 200);
    UNTIL(status_of(event), "\"status\":\"sent\"");
}

Test(toy_channel, nobody_of_that_name_any_more)
{
    send_by_toy("joe", "erase me");
    toy_answer(take().attempt, 503);
    until_settled(1);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_WEBHOOK, BF_LANE_NORMAL), 1);
    cr_assert_eq(bf_core_erase_user(core, uid_of("joe"), BF_BYTES("test")), 0);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_WEBHOOK, BF_LANE_NORMAL), 0);
    cr_assert(toy_is_quiet());
}
