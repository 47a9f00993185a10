/*
 * The push channel (channels/channel.h) by APNs, FCM and Web Push: joins notes, devices,
 * credentials, requests and answers. The dataplane sends; a request is a block and a command in a
 * ring.
 */
#include "channels/push/channel.h"

#include <stdlib.h>
#include <string.h>

#include "stats/metrics.h"
#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "belfry/conf/conf.h"
#include "belfry/shm/user_key.h"
#include "log/log.h"
#include "publish/launches.h"
#include "store/devices.h"

/* FCM: 600,000 a minute and project (PROVIDERS 2); the others document none. */
#define FCM_LIMIT_PER_MIN 600000u

struct push {
    struct bf_push_creds *creds;
    const struct bf_vault *vault;
};

/* A sending's own: the opened token, and what its pool said of the app. */
struct own {
    struct bf_push_target target;
    char topic[BF_CONF_PUSH_TEXT_BYTES];
    uint8_t room[BF_DEVICE_SEALED_BYTES_MAX];
};
_Static_assert(sizeof(struct own) <= BF_SENDING_OWN_BYTES, "fits a sending");

static struct push *push_of(struct bf_channel_state *channel)
{
    return (struct push *)channel;
}

static struct own *own_of(struct bf_sending *sending)
{
    return (struct own *)sending->own;
}

/* ---- life ---- */

static int start(const struct bf_channel_env *env, struct bf_channel_state **ret, char *err,
                 size_t n)
{
    const struct bf_push_creds_options options = {.conf = env->conf,
                                                  .store = env->store,
                                                  .vault = env->vault,
                                                  .changed = env->changed,
                                                  .arg = env->arg};
    struct push *push = calloc(1, sizeof(*push));
    if (!push)
        return BF_ERR_NO_MEMORY;
    push->vault = env->vault;
    int rc = bf_push_creds_start(&options, &push->creds, err, n);
    if (rc == 0)
        *ret = (struct bf_channel_state *)push;
    else
        free(push);
    return rc;
}

static void stop(struct bf_channel_state *channel)
{
    bf_push_creds_stop(push_of(channel)->creds);
    free(channel);
}

static int reload(struct bf_channel_state *channel, const struct bf_conf *conf, char *err, size_t n)
{
    return bf_push_creds_reload(push_of(channel)->creds, conf, err, n);
}

static void snapshot(struct bf_channel_state *channel, struct bf_writer *w)
{
    bf_push_creds_write(push_of(channel)->creds, w);
}

/* ---- notes ---- */

static int open_note(struct bf_channel_state *channel, const struct bf_content_source *source,
                     struct bf_content **ret, char why[BF_WHY_BYTES])
{
    (void)channel;
    struct bf_push_note *note = malloc(sizeof(*note));
    if (!note) {
        bf_format(why, BF_WHY_BYTES, "%s", "no_memory: the notification could not be read");
        return BF_ERR_NO_MEMORY;
    }
    int rc = bf_push_note_open(source, note, why);
    if (rc == 0)
        *ret = &note->content;
    else
        free(note);
    return rc;
}

static const struct bf_push_note *note_of(const struct bf_content *content)
{
    return (const struct bf_push_note *)content; /* its first member */
}

static void close_note(struct bf_content *content)
{
    struct bf_push_note *note = (struct bf_push_note *)content;
    bf_push_note_close(note);
    free(note);
}

/* ---- devices ---- */

/* Whether a device counts as gone: an app that was removed does not say so, so it is gone when it
 * was not seen for push.device_stale. */
static bool is_stale(const struct bf_turn *turn, const struct bf_device_row *device)
{
    uint64_t stale_ms = (uint64_t)turn->conf->push_device_stale_days * 86400u * 1000u;
    return stale_ms > 0 && turn->now_ms > device->seen_ms &&
           turn->now_ms - device->seen_ms > stale_ms;
}

static struct bf_endpoint endpoint_of(const struct bf_turn *turn,
                                      const struct bf_device_row *device)
{
    struct bf_endpoint endpoint = {.id = device->id,
                                   .state = BF_ENDPOINT_LIVE,
                                   .kind = device->kind,
                                   .form = device->platform,
                                   .dead_ms = device->dead_ms,
                                   .registered_ms = device->registered_ms,
                                   .account = device->app,
                                   .address = device->sealed};
    if (device->state != BF_DEVICE_LIVE)
        endpoint.state = BF_ENDPOINT_DEAD;
    else if (is_stale(turn, device))
        endpoint.state = BF_ENDPOINT_STALE;
    memcpy(endpoint.hash, device->token_hash, sizeof(endpoint.hash));
    return endpoint;
}

struct walk {
    const struct bf_turn *turn;
    bf_endpoint_fn each;
    void *arg;
};

static int give_device(void *arg, const struct bf_device_row *device)
{
    const struct walk *w = arg;
    const struct bf_endpoint endpoint = endpoint_of(w->turn, device);
    return w->each(w->arg, &endpoint);
}

static int endpoints(struct bf_channel_state *channel, const struct bf_turn *turn,
                     struct bf_uid uid, bf_endpoint_fn each, void *arg)
{
    (void)channel;
    struct walk w = {.turn = turn, .each = each, .arg = arg};
    return bf_store_walk_devices(turn->store, uid, give_device, &w);
}

/* An APNs broadcast channel as a device that nobody holds. */
static int give_channel(const struct bf_leg_row *row, const struct bf_content *content,
                        bf_endpoint_fn use, void *arg, char why[BF_WHY_BYTES])
{
    struct bf_bytes name, app;
    if (!bf_push_note_channel(note_of(content), &name, &app)) {
        bf_format(why, BF_WHY_BYTES, "%s",
                  "bad_override: overrides.push.apns names no channel and app");
        return BF_ERR_MALFORMED;
    }
    const struct bf_endpoint endpoint = {.id = row->endpoint_id,
                                         .state = BF_ENDPOINT_LIVE,
                                         .kind = BF_PUSH_APNS,
                                         .registered_ms = row->created_ms,
                                         .account = app,
                                         .address = name};
    return use(arg, &endpoint);
}

static int endpoint(struct bf_channel_state *channel, const struct bf_turn *turn,
                    const struct bf_leg_row *row, const struct bf_content *content,
                    bf_endpoint_fn use, void *arg, char why[BF_WHY_BYTES])
{
    (void)channel;
    struct walk w = {.turn = turn, .each = use, .arg = arg};
    if (bf_leg_is_nobodys(row))
        return give_channel(row, content, use, arg, why);
    return bf_store_get_device(turn->store, row->uid, &row->endpoint_id, give_device, &w);
}

/* ---- pool and request ---- */

/* Where it goes: an opened token, or a broadcast channel's id. */
static int open_target(const struct push *push, struct bf_sending *s, char why[BF_WHY_BYTES])
{
    const struct bf_endpoint *e = s->endpoint;
    struct own *own = own_of(s);
    const struct bf_device_row device = {.uid = s->row->uid,
                                         .id = e->id,
                                         .kind = e->kind,
                                         .platform = e->form,
                                         .sealed = e->address};
    if (bf_leg_is_nobodys(s->row)) {
        own->target = (struct bf_push_target){
            .kind = BF_PUSH_APNS, .is_broadcast = true, .token = e->address};
        return 0;
    }
    int rc = bf_push_device_open(push->vault, &device, own->room, &own->target);
    if (rc != 0)
        bf_format(why, BF_WHY_BYTES, "%s",
                  "unreadable_token: sealed with another key (push.device_key_file)");
    return rc;
}

static int pool(struct bf_channel_state *channel, struct bf_sending *s, struct bf_bytes account,
                struct bf_pool_info *ret, char why[BF_WHY_BYTES])
{
    struct push *push = push_of(channel);
    struct own *own = own_of(s);
    struct bf_push_pool_info info;
    struct bf_bytes authority = BF_BYTES(""), path;
    enum bf_push_kind kind = (enum bf_push_kind)s->endpoint->kind;
    if (account.len == 0 && open_target(push, s, why) != 0)
        return BF_ERR_CORRUPT;
    if (kind == BF_PUSH_WEBPUSH)
        (void)bf_push_endpoint_split(own->target.token, &authority, &path);
    int rc = bf_push_creds_find(push->creds, account.len ? account : s->endpoint->account, kind,
                                authority, s->row->uid.tenant, &info);
    *ret = (struct bf_pool_info){0};
    if (rc == BF_ERR_FULL) /* as one that is not ready: others give their places back */
        return 0;
    if (rc != 0) {
        bf_format(why, BF_WHY_BYTES, "%s",
                  rc == BF_ERR_DENIED
                      ? "origin_not_allowed: the app serves no such push service"
                      : "unknown_app: push.apps names no app of this kind and name");
        return rc;
    }
    memcpy(own->topic, info.topic, sizeof(own->topic));
    own->target.app_topic = (struct bf_bytes){own->topic, strlen(own->topic)};
    own->target.is_certificate = info.is_certificate;
    ret->id = info.pool;
    ret->is_ready = info.is_ready;
    ret->limit_per_min = kind == BF_PUSH_FCM ? FCM_LIMIT_PER_MIN : 0;
    memcpy(ret->failover, info.failover, sizeof(ret->failover));
    return 0;
}

static int launch(struct bf_channel_state *channel, struct bf_sending *s, char why[BF_WHY_BYTES])
{
    (void)channel;
    struct bf_push_note *note = (struct bf_push_note *)s->content;
    struct bf_uid uid = s->row->uid;
    uint8_t request[BF_PUSH_REQUEST_BYTES_MAX];
    size_t len = 0;
    note->message_id = s->row->message_id;
    int rc = bf_push_request_build(note, &own_of(s)->target, request, sizeof(request), &len, why);
    if (rc != 0)
        return rc;
    struct bf_launch *place = bf_launches_take(s->turn->launches, s->row->lane, request, len);
    if (!place)
        return BF_ERR_FULL;
    struct bf_cmd_push cmd = {.push_id = s->attempt, .block = place->block, .pool = s->pool};
    if (!bf_leg_is_nobodys(s->row))
        cmd.user = bf_user_key_of(s->turn->user_secret, uid.tenant.at, uid.tenant.len, uid.user.at,
                                  uid.user.len);
    place->kind = BF_CMD_PUSH;
    memcpy(place->payload, &cmd, sizeof(cmd));
    return 0;
}

/* ---- answers ---- */

_Static_assert((int)BF_ANSWERED == (int)BF_PUSH_ANSWERED &&
                   (int)BF_NOT_SENT == (int)BF_PUSH_NOT_SENT &&
                   (int)BF_UNKNOWN == (int)BF_PUSH_UNKNOWN &&
                   BF_NO_RETRY_AFTER == BF_PUSH_NO_RETRY_AFTER,
               "receipts say what answers say");

static void classify(const struct bf_attempt *attempt, const struct bf_provider_answer *answer,
                     struct bf_verdict *ret)
{
    const struct bf_push_context context = {.kind = (enum bf_push_kind)attempt->kind,
                                            .registered_ms = attempt->registered_ms};
    const struct bf_rcpt_push said = {.push_id = answer->attempt,
                                      .pool = attempt->pool,
                                      .retry_after_s = answer->retry_after_s,
                                      .answer_us = answer->answer_us,
                                      .status = answer->status,
                                      .body_len = (uint16_t)answer->body.len,
                                      .end = (uint8_t)answer->end,
                                      .why = answer->why};
    bf_push_classify(&context, &said, answer->body, ret);
}

struct dead {
    const struct bf_turn *turn;
    const struct bf_attempt *attempt;
    const char *reason;
};

static int tell_dead(void *arg, const struct bf_device_row *stored)
{
    const struct dead *dead = arg;
    char text[BF_PUSH_EVENT_BYTES_MAX];
    struct bf_device_row row = *stored;
    row.uid = dead->attempt->row->uid;
    row.reason = (struct bf_bytes){dead->reason, strlen(dead->reason)};
    size_t len = bf_push_device_event(&row, "dead", dead->turn->now_ms, text);
    bf_log_token_event(dead->turn->log, row.uid.user, (struct bf_bytes){text, len});
    return 0;
}

static void forget_token(struct bf_turn *turn, const struct bf_attempt *attempt, const char *reason)
{
    const struct bf_leg_row *row = attempt->row;
    struct dead dead = {.turn = turn, .attempt = attempt, .reason = reason};
    if (bf_batch_mark_device_dead(turn->batch, row->uid, &row->endpoint_id, attempt->hash,
                                  turn->now_ms, (struct bf_bytes){reason, strlen(reason)}) != 0)
        return; /* gone, or another token by now */
    (void)bf_store_get_device(turn->store, row->uid, &row->endpoint_id, tell_dead, &dead);
    bf_count(BF_CM_M_push_dead_tokens, 1);
}

static void heed(struct bf_channel_state *channel, struct bf_turn *turn,
                 const struct bf_attempt *attempt, const struct bf_verdict *verdict)
{
    struct push *push = push_of(channel);
    if (attempt->pool != 0 && verdict->flags & BF_VERDICT_RENEW)
        bf_push_creds_renew(push->creds, attempt->pool);
    if (attempt->pool != 0 && verdict->flags & BF_VERDICT_KEEP_TOKEN)
        bf_push_creds_keep(push->creds, attempt->pool);
    if (verdict->flags & BF_VERDICT_FORGET_ENDPOINT)
        forget_token(turn, attempt, verdict->reason);
}

/* ---- for people ---- */

static const char *kind_name(uint8_t kind)
{
    return bf_push_kind_name((enum bf_push_kind)kind);
}

static uint32_t pools(struct bf_channel_state *channel,
                      void (*each)(void *arg, const struct bf_pool_row *row), void *arg)
{
    return bf_push_creds_walk(push_of(channel)->creds, each, arg);
}

const struct bf_channel_ops bf_push_ops = {
    .start = start,
    .stop = stop,
    .reload = reload,
    .snapshot = snapshot,
    .open = open_note,
    .close = close_note,
    .endpoints = endpoints,
    .endpoint = endpoint,
    .pool = pool,
    .launch = launch,
    .classify = classify,
    .heed = heed,
    .kind_name = kind_name,
    .pools = pools,
};
