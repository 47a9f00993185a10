/*
 * Proves the push part of a delivery status: nothing while there is nothing; attempts by device and
 * number; what waits comes last, with its time; the in-app part keeps its shape.
 */
#include "../store/store_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#include <yyjson.h>

#include "api/status.h"
#include "ingest/event.h"
#include "store/legs.h"

TestSuite(status_push, .init = setup, .fini = teardown, .timeout = 60);

#define NOW     UINT64_C(1700000000000)
#define EXPIRES UINT64_C(4000000000000)

static void put_event(const struct bf_bytes *users, uint32_t count)
{
    struct bf_event_row row = {.event_id = id_of(1),
                               .accepted_ms = NOW,
                               .expires_ms = EXPIRES,
                               .target = BF_TARGET_USERS,
                               .tenant = text("t"),
                               .producer = text("p"),
                               .type = text("x"),
                               .recipients = users,
                               .recipient_count = count};
    struct bf_batch *b = bf_batch_create(store);
    bf_batch_put_event_row(b, &row);
    write_batch(b);
    bf_batch_destroy(b);
}

static void put_outcome(const char *user, uint16_t device, uint16_t number, enum bf_status status,
                        const char *reason)
{
    struct bf_outcome o = {.event_id = id_of(1),
                           .uid = uid("t", user),
                           .channel = BF_CHANNEL_PUSH,
                           .attempt = (uint16_t)(device << 6 | number),
                           .status = (uint8_t)status,
                           .at_ms = NOW + number,
                           .expires_ms = EXPIRES,
                           .reason = text(reason)};
    struct bf_batch *b = bf_batch_create(store);
    bf_batch_put_outcome(b, &o);
    write_batch(b);
    bf_batch_destroy(b);
}

static void put_attempt_at(struct bf_id device, uint16_t number, enum bf_status status)
{
    struct bf_outcome o = {.event_id = id_of(1),
                           .uid = uid("t", "ann"),
                           .channel = BF_CHANNEL_PUSH,
                           .endpoint = device,
                           .attempt = number,
                           .status = (uint8_t)status,
                           .at_ms = NOW,
                           .expires_ms = EXPIRES};
    struct bf_batch *b = bf_batch_create(store);
    bf_batch_put_outcome(b, &o);
    write_batch(b);
    bf_batch_destroy(b);
}

static void put_row(const char *user, uint64_t id, struct bf_id device, uint32_t attempts,
                    const char *reason)
{
    static const struct bf_id none;
    struct bf_leg_row row = {.lane = BF_LANE_NORMAL,
                             .channel = BF_CHANNEL_PUSH,
                             .kind = bf_id_is_equal(&device, &none) ? BF_LEG_FALLBACK : BF_LEG_SEND,
                             .not_before_ms = NOW + 5000,
                             .message_id = id_of(id),
                             .uid = uid("t", user),
                             .event_id = id_of(1),
                             .endpoint_id = device,
                             .created_ms = NOW,
                             .expires_ms = EXPIRES,
                             .attempts = attempts,
                             .meta = text("m"),
                             .fragment = text("f"),
                             .overrides = text(""),
                             .reason = text(reason)};
    struct bf_batch *b = bf_batch_create(store);
    bf_batch_put_leg(b, &row);
    write_batch(b);
    bf_batch_destroy(b);
}

/* The status as JSON, written again without white space, of recipient |at|: its channels. */
static const char *channels(size_t at)
{
    static char *text;
    struct bf_out o = {0};
    struct bf_id event_id = id_of(1);
    size_t len = 0;
    cr_assert_eq(bf_status_write(store, &event_id, (struct bf_bytes){"t", 1}, &o), 0);
    char *json = bf_out_take(&o, &len);
    yyjson_doc *doc = yyjson_read(json, len, 0);
    cr_assert_not_null(doc, "%s", json);
    yyjson_val *recipient =
        yyjson_arr_get(yyjson_obj_get(yyjson_doc_get_root(doc), "recipients"), at);
    free(text);
    text = yyjson_val_write(yyjson_obj_get(recipient, "channels"), 0, NULL);
    yyjson_doc_free(doc);
    free(json);
    return text;
}

#define INAPP "[{\"channel\":\"inapp\",\"attempts\":[],\"status\":\"queued\"}"

Test(status_push, nothing_of_push_nothing_said)
{
    put_event((struct bf_bytes[]){text("ann")}, 1);
    cr_assert_str_eq(channels(0), INAPP "]");
}

Test(status_push, attempts_by_device_and_number)
{
    put_event((struct bf_bytes[]){text("ann"), text("bob")}, 2);
    put_outcome("ann", 700, 1, BF_STATUS_FAILED, "Unregistered");
    put_outcome("ann", 3, 2, BF_STATUS_SENT, "");
    put_outcome("ann", 3, 1, BF_STATUS_FAILED, "503");
    cr_assert_str_eq(channels(0), INAPP
                     ",{\"channel\":\"push\",\"attempts\":["
                     "{\"attempt\":1,\"status\":\"failed\",\"reason\":\"503\",\"at\":\"2023-11-"
                     "14T22:13:20.001Z\"},"
                     "{\"attempt\":2,\"status\":\"sent\",\"at\":\"2023-11-14T22:13:20.002Z\"},"
                     "{\"attempt\":1,\"status\":\"failed\",\"reason\":\"Unregistered\",\"at\":"
                     "\"2023-11-14T22:13:20.001Z\"}"
                     "],\"status\":\"sent\"}]");
    cr_assert_str_eq(channels(1), INAPP "]", "another recipient's");
}

Test(status_push, what_waits_comes_last)
{
    struct bf_id none = {0};
    put_event((struct bf_bytes[]){text("ann"), text("bob"), text("cid")}, 3);
    put_outcome("ann", 9, 1, BF_STATUS_FAILED, "Unregistered");
    put_row("ann", 10, id_of(99), 2, "TooManyRequests");
    put_row("bob", 11, none, 0, "");
    put_outcome("cid", 9, 1, BF_STATUS_EXPIRED, "expired");
    cr_assert_str_eq(channels(0),
                     INAPP ",{\"channel\":\"push\",\"attempts\":["
                           "{\"attempt\":1,\"status\":\"failed\",\"reason\":\"Unregistered\","
                           "\"at\":\"2023-11-14T22:13:20.001Z\"},"
                           "{\"attempt\":3,\"status\":\"queued\",\"reason\":\"TooManyRequests\","
                           "\"not_before\":\"2023-11-14T22:13:25.000Z\"}"
                           "],\"status\":\"queued\"}]");
    cr_assert_str_eq(channels(1), INAPP ",{\"channel\":\"push\",\"attempts\":["
                                        "{\"attempt\":1,\"status\":\"queued\",\"reason\":"
                                        "\"fallback\",\"not_before\":\"2023-11-14T22:13:25.000Z\"}"
                                        "],\"status\":\"queued\"}]");
    cr_assert_str_eq(channels(2), INAPP ",{\"channel\":\"push\",\"attempts\":["
                                        "{\"attempt\":1,\"status\":\"expired\",\"reason\":"
                                        "\"expired\",\"at\":\"2023-11-14T22:13:20.001Z\"}"
                                        "],\"status\":\"expired\"}]");
}

static int count_left(void *arg, const struct bf_outcome *outcome)
{
    (void)outcome;
    ++*(uint32_t *)arg;
    return 0;
}

/* Identities that agree in all but one bit, whichever it is: each has rows of its own, and an
 * erasure takes them all. */
Test(status_push, devices_never_share_a_row)
{
    struct bf_id first = id_of(7);
    uint32_t attempts = 0;
    const char *text_of;
    put_event((struct bf_bytes[]){text("ann")}, 1);
    for (uint32_t n = 1; n <= 2; n++)
        put_attempt_at(first, (uint16_t)n, BF_STATUS_SENT);
    for (uint32_t bit = 0; bit < 128; bit++) {
        struct bf_id other = first;
        other.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        put_attempt_at(other, 1, BF_STATUS_FAILED);
    }
    text_of = channels(0);
    while ((text_of = strstr(text_of, "{\"attempt\":")) != NULL) {
        attempts++;
        text_of++;
    }
    cr_assert_eq(attempts, 130);
    struct bf_batch *b = bf_batch_create(store);
    cr_assert_eq(bf_batch_erase_user(b, uid("t", "ann"), NOW, text("test")), 0);
    write_batch(b);
    bf_batch_destroy(b);
    struct bf_id event = id_of(1);
    uint32_t left = 0;
    cr_assert_eq(bf_store_walk_outcomes(store, &event, count_left, &left), 0);
    cr_assert_eq(left, 0);
}
