/*
 * GET /v1/notifications/{id}/status (ING-9): recipients x channels x attempts. In-app status is
 * derived from the inbox item (opened if read, seen, delivered if acknowledged, else sent), the
 * rest comes from outcome rows; what waits in the push queue is an attempt yet to come. The id is a
 * notification's, or with user_id that of an inbox item.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/calls.h"
#include "api/status.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "channels/table/channels.h"
#include "store/legs.h"

/* Rows of earlier releases have no endpoint and tell devices apart by ten bits above the number. */
#define PUSH_NUMBER_MASK 63u

/* Outcomes of one answer: a topic event with a million subscribers is counted by metrics, not
 * listed. */
#define OUTCOMES_MAX 2000u

struct outcome_copy {
    struct bf_outcome row; /* bytes point into |text| */
    char *text;
};

struct status {
    struct bf_store *store;
    struct bf_id event_id;
    struct bf_bytes tenant; /* at NULL: any (the admin port) */
    struct bf_out *o;
    struct outcome_copy *outcomes;
    uint32_t outcome_count;
    bool is_cut;
    bool is_denied;
    bool is_broadcast;
    uint32_t listed;
};

/* ---- outcomes ---- */

static int keep_outcome(void *arg, const struct bf_outcome *outcome)
{
    struct status *s = arg;
    size_t user_len = outcome->uid.user.len;
    size_t reason_len = outcome->reason.len;
    if (s->outcome_count == OUTCOMES_MAX) {
        s->is_cut = true;
        return 1;
    }
    struct outcome_copy *copy = &s->outcomes[s->outcome_count];
    copy->row = *outcome;
    copy->text = malloc(user_len + reason_len + 1);
    if (!copy->text)
        return -ENOMEM;
    if (user_len > 0)
        memcpy(copy->text, outcome->uid.user.at, user_len);
    if (reason_len > 0)
        memcpy(copy->text + user_len, outcome->reason.at, reason_len);
    copy->row.uid.user = (struct bf_bytes){copy->text, user_len};
    copy->row.reason = (struct bf_bytes){copy->text + user_len, reason_len};
    s->outcome_count++;
    return 0;
}

static int read_outcomes(struct status *s)
{
    s->outcomes = calloc(OUTCOMES_MAX, sizeof(*s->outcomes));
    if (!s->outcomes)
        return -ENOMEM;
    int rc = bf_store_walk_outcomes(s->store, &s->event_id, keep_outcome, s);
    return rc > 0 || rc == BF_ERR_NOT_FOUND ? 0 : rc;
}

static void free_outcomes(struct status *s)
{
    for (uint32_t i = 0; i < s->outcome_count; i++)
        free(s->outcomes[i].text);
    free(s->outcomes);
}

/* ---- one recipient ---- */

static void put_attempt(struct bf_out *o, unsigned number, enum bf_status status,
                        struct bf_bytes reason, uint64_t at_ms)
{
    bf_out_print(o, "{\"attempt\":%u,\"status\":", number);
    bf_out_cstr(o, bf_status_name(status));
    if (reason.len > 0) {
        bf_out_text(o, ",\"reason\":");
        bf_out_str(o, reason);
    }
    if (at_ms > 0) {
        bf_out_text(o, ",\"at\":");
        bf_out_time(o, at_ms);
    }
    bf_out_text(o, "}");
}

static enum bf_status status_of_item(struct status *s, struct bf_uid uid,
                                     const struct bf_item *item)
{
    struct bf_user_state state;
    if ((item->flags & BF_ITEM_READ) != 0)
        return BF_STATUS_OPENED;
    if ((item->flags & BF_ITEM_SEEN) != 0)
        return BF_STATUS_SEEN;
    if (bf_store_get_state(s->store, uid, &state) == 0 &&
        bf_store_is_acked(s->store, uid, &state, item->lane, item->seq))
        return BF_STATUS_DELIVERED;
    if (item->expires_ms > 0 && item->expires_ms <= bf_wall_ms())
        return BF_STATUS_EXPIRED;
    return BF_STATUS_SENT;
}

/* The in-app item of a recipient, if it is in the inbox. */
static bool find_item(struct status *s, struct bf_uid uid, struct bf_item_copy *copy)
{
    struct bf_id message;
    enum bf_lane lane;
    uint64_t seq;
    bf_message_id(&s->event_id, uid.tenant, uid.user, BF_CHANNEL_INAPP, BF_BYTES(""), 0, &message);
    return bf_store_find_message(s->store, uid, &message, &lane, &seq) &&
           bf_store_get_item(s->store, uid, lane, seq, copy) == 0;
}

struct attempts {
    unsigned count;
    enum bf_status last;
};

static void put_outcomes_of(struct status *s, struct bf_bytes user, unsigned channel,
                            struct attempts *attempts)
{
    for (uint32_t i = 0; i < s->outcome_count; i++) {
        const struct bf_outcome *row = &s->outcomes[i].row;
        if (row->channel != channel || !bf_bytes_is_equal(row->uid.user, user))
            continue;
        if (attempts->count++ > 0)
            bf_out_text(s->o, ",");
        attempts->last = (enum bf_status)row->status;
        put_attempt(s->o, attempts->count, attempts->last, row->reason, row->at_ms);
    }
}

/* ---- push ---- */

struct leg_status {
    struct status *s;
    uint8_t channel;
    bool is_first; /* no other channel stands before it */
    unsigned count;
    bool is_waiting;
    enum bf_status best; /* the furthest that any endpoint came; QUEUED: none got it */
    enum bf_status last;
};

/* Before each attempt; the channel is there only if it has one. */
static void begin_attempt(struct leg_status *p)
{
    if (p->count++ > 0 || !p->is_first)
        bf_out_text(p->s->o, ",");
    if (p->count == 1)
        bf_out_print(p->s->o, "{\"channel\":\"%s\",\"attempts\":[",
                     bf_channel_name((enum bf_channel)p->channel));
}

static void put_leg_outcome(struct leg_status *p, const struct bf_outcome *row)
{
    enum bf_status status = (enum bf_status)row->status;
    static const struct bf_id none;
    bool is_old = bf_id_is_equal(&row->endpoint, &none);
    unsigned number = is_old ? row->attempt & PUSH_NUMBER_MASK : row->attempt;
    begin_attempt(p);
    /* 0: decided before any was made */
    put_attempt(p->s->o, number > 0 ? number : 1, status, row->reason, row->at_ms);
    p->last = status;
    if (status >= BF_STATUS_SENT && status <= BF_STATUS_OPENED && status > p->best)
        p->best = status;
}

/* A row of the queue: the attempt that comes next. A fallback goes to all endpoints, unless the
 * in-app message is acknowledged first. */
static int put_waiting(void *arg, const struct bf_leg_row *row)
{
    struct leg_status *p = arg;
    struct bf_out *o = p->s->o;
    bool is_fallback = row->kind == BF_LEG_FALLBACK;
    struct bf_bytes reason = row->reason;
    if (row->channel != p->channel)
        return 0;
    if (reason.len == 0 && is_fallback)
        reason = BF_BYTES("fallback");
    begin_attempt(p);
    bf_out_print(o, "{\"attempt\":%u,\"status\":\"queued\"", row->attempts + 1);
    if (reason.len > 0) {
        bf_out_text(o, ",\"reason\":");
        bf_out_str(o, reason);
    }
    bf_out_text(o, ",\"not_before\":");
    bf_out_time(o, row->not_before_ms);
    bf_out_text(o, "}");
    p->is_waiting = true;
    return 0;
}

/* ,{"channel":C,"attempts":[..],"status":S} if there is anything to say of the channel. Whether
 * there is. */
static bool put_channel(struct status *s, struct bf_uid uid, uint8_t channel, bool is_first)
{
    struct leg_status p = {
        .s = s, .channel = channel, .is_first = is_first, .best = BF_STATUS_QUEUED};
    for (uint32_t i = 0; i < s->outcome_count; i++) {
        const struct bf_outcome *row = &s->outcomes[i].row;
        if (row->channel == channel && bf_bytes_is_equal(row->uid.user, uid.user))
            put_leg_outcome(&p, row);
    }
    if (bf_store_walk_legs_of(s->store, uid, &s->event_id, put_waiting, &p) < 0)
        s->is_cut = true;
    if (p.count == 0)
        return false;
    enum bf_status status = p.best;
    if (p.best == BF_STATUS_QUEUED && !p.is_waiting)
        status = p.last;
    bf_out_text(s->o, "],\"status\":");
    bf_out_cstr(s->o, bf_status_name(status));
    bf_out_text(s->o, "}");
    return true;
}

static void put_inapp(struct status *s, struct bf_uid uid)
{
    struct bf_item_copy copy = {.memory = NULL};
    struct attempts attempts = {.last = BF_STATUS_QUEUED};
    bf_out_text(s->o, "{\"channel\":\"inapp\",\"attempts\":[");
    put_outcomes_of(s, uid.user, BF_CHANNEL_INAPP, &attempts);
    if (find_item(s, uid, &copy)) {
        enum bf_status status = status_of_item(s, uid, &copy.item);
        uint64_t at_ms = copy.item.changed_ms ? copy.item.changed_ms : copy.item.created_ms;
        if (attempts.count++ > 0)
            bf_out_text(s->o, ",");
        put_attempt(s->o, attempts.count, status, BF_BYTES(""), at_ms);
        /* "received" told by the device counts until something more is known */
        if (attempts.last != BF_STATUS_DELIVERED || status > BF_STATUS_DELIVERED)
            attempts.last = status;
        bf_out_text(s->o, "],\"id\":");
        bf_out_id(s->o, &copy.item.id);
    } else {
        bf_out_text(s->o, "]");
    }
    bf_out_text(s->o, ",\"status\":");
    bf_out_cstr(s->o, bf_status_name(attempts.last));
    bf_out_text(s->o, "}");
    bf_item_free(&copy);
}

/* {"user_id":U,"channels":[{"channel":"inapp","attempts":[..],"status":S},{"channel":"push",..}]}
 * A broadcast has no inbox, and nobody is remembered who had it on a socket. */
static void put_recipient(struct status *s, struct bf_bytes user)
{
    struct bf_uid uid = {.tenant = s->tenant, .user = user};
    bool is_first = s->is_broadcast; /* which has no in-app channel */
    if (s->listed++ > 0)
        bf_out_text(s->o, ",");
    bf_out_text(s->o, "{\"user_id\":");
    bf_out_str(s->o, user);
    bf_out_text(s->o, ",\"channels\":[");
    if (!s->is_broadcast)
        put_inapp(s, uid);
    for (uint8_t channel = 0; channel < BF_CHANNEL_COUNT; channel++)
        if (bf_channel_ops_of(channel) && put_channel(s, uid, channel, is_first))
            is_first = false;
    bf_out_text(s->o, "]}");
}

/* Recipients that no event row names: subscribers of a topic with an outcome. */
static void put_others(struct status *s)
{
    for (uint32_t i = 0; i < s->outcome_count; i++) {
        struct bf_bytes user = s->outcomes[i].row.uid.user;
        bool is_listed = false;
        for (uint32_t j = 0; j < i && !is_listed; j++)
            is_listed = bf_bytes_is_equal(s->outcomes[j].row.uid.user, user);
        if (!is_listed)
            put_recipient(s, user);
    }
}

/* ---- the event ---- */

static void put_text(struct bf_out *o, const char *member, struct bf_bytes value)
{
    if (value.len == 0)
        return;
    bf_out_text(o, member);
    bf_out_str(o, value);
}

static void put_head(struct status *s, uint64_t accepted_ms, struct bf_bytes producer,
                     struct bf_bytes traceparent)
{
    bf_out_text(s->o, "{\"notification_id\":");
    bf_out_id(s->o, &s->event_id);
    bf_out_text(s->o, ",\"accepted_at\":");
    bf_out_time(s->o, accepted_ms);
    put_text(s->o, ",\"producer\":", producer);
    put_text(s->o, ",\"traceparent\":", traceparent);
}

static const char *target_name(unsigned target)
{
    static const char *const names[BF_TARGET_COUNT] = {"users", "topic", "broadcast"};
    return target < BF_TARGET_COUNT ? names[target] : "unknown";
}

/* Its place in the broadcast log, as in frames `b`. The log gives it after the event's row is
 * written. */
static void put_bseq(struct status *s)
{
    uint64_t bseq;
    if (s->is_broadcast && bf_store_find_bcast(s->store, &s->event_id, &bseq))
        bf_out_print(s->o, ",\"bseq\":%llu", (unsigned long long)bseq);
}

static int use_event(void *arg, const struct bf_event_row *row)
{
    struct status *s = arg;
    if (s->tenant.at && !bf_bytes_is_equal(row->tenant, s->tenant)) {
        s->is_denied = true; /* another tenant's: as if it were not there */
        return 0;
    }
    s->tenant = row->tenant;
    s->is_broadcast = row->is_broadcast || row->target == BF_TARGET_BROADCAST;
    put_head(s, row->accepted_ms, row->producer, row->traceparent);
    put_text(s->o, ",\"type\":", row->type);
    put_text(s->o, ",\"topic\":", row->topic);
    bf_out_print(s->o, ",\"target\":\"%s\",\"lane\":\"%s\",\"transient\":%s",
                 target_name(row->target), bf_lane_name((enum bf_lane)(row->lane % BF_LANE_COUNT)),
                 row->transient ? "true" : "false");
    put_bseq(s);
    bf_out_text(s->o, ",\"recipients\":[");
    for (uint32_t i = 0; i < row->recipient_count; i++)
        put_recipient(s, row->recipients[i]);
    if (row->recipient_count == 0)
        put_others(s);
    bf_out_print(s->o, "],\"complete\":%s}", s->is_cut ? "false" : "true");
    return 0;
}

int bf_status_write(struct bf_store *store, const struct bf_id *event_id, struct bf_bytes tenant,
                    struct bf_out *o)
{
    struct status s = {.store = store, .event_id = *event_id, .tenant = tenant, .o = o};
    int rc = read_outcomes(&s);
    if (rc == 0)
        rc = bf_store_get_event_row(store, event_id, use_event, &s);
    free_outcomes(&s);
    return rc == 0 && s.is_denied ? BF_ERR_NOT_FOUND : rc;
}

/* Accepted a moment ago: the row is on its way. */
static bool write_recent(struct bf_request *r, const struct bf_id *id, struct bf_out *o)
{
    struct bf_recent_row row;
    struct status s = {.event_id = *id, .o = o};
    if (!bf_recent_get(bf_api_of(r)->recent, id, &row) ||
        !bf_bytes_is_equal((struct bf_bytes){row.tenant, strlen(row.tenant)}, bf_tenant_of(r)))
        return false;
    put_head(&s, row.accepted_ms, (struct bf_bytes){row.producer, strlen(row.producer)},
             (struct bf_bytes){row.traceparent, strlen(row.traceparent)});
    bf_out_text(o, ",\"status\":\"queued\",\"recipients\":[],\"complete\":false}");
    return true;
}

/* With user_id, an inbox item's id stands for its notification's. */
static bool resolve(struct bf_request *r, struct bf_id *ret_event_id)
{
    struct bf_store *store = bf_services_of(r)->store;
    char room[BF_USER_ID_BYTES_MAX];
    struct bf_bytes user;
    struct bf_item_copy copy;
    enum bf_lane lane;
    uint64_t seq;
    *ret_event_id = r->id;
    if (!bf_request_query(r, "user_id", room, sizeof(room), &user))
        return false;
    struct bf_uid uid = {.tenant = bf_tenant_of(r), .user = user};
    if (user.len > 0 && bf_store_find_message(store, uid, &r->id, &lane, &seq) &&
        bf_store_get_item(store, uid, lane, seq, &copy) == 0) {
        *ret_event_id = copy.item.event_id;
        bf_item_free(&copy);
    }
    return true;
}

void bf_get_status(struct bf_request *r)
{
    struct bf_out o = {0};
    struct bf_id event_id;
    if (!resolve(r, &event_id))
        return;
    int rc = bf_status_write(bf_services_of(r)->store, &event_id, bf_tenant_of(r), &o);
    if (rc == 0 || (rc == BF_ERR_NOT_FOUND && write_recent(r, &event_id, &o)))
        bf_answer_json(r, 200, &o);
    else if (rc == BF_ERR_NOT_FOUND)
        bf_answer_fail(r, 404, "not-found", "id",
                       "no notification has this id, or its status is kept no longer");
    else
        bf_answer_error(r, rc);
    bf_out_free(&o);
}
