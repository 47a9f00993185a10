/*
 * Proves that a push's dead letter comes back whole: the row of the queue has what the letter said,
 * under a new message id, and letter and row change places in one write. What is expired,
 * unreadable or of a user who is gone stays out of the queue.
 */
#include "../store/store_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#include "belfry/base/time.h"
#include "belfry/conf/conf_load.h"
#include "fanout/core.h"
#include "fanout/core_state.h"
#include "outbound/letter.h"
#include "store/legs.h"

#define FAR    UINT64_C(4000000000000)
#define DEVICE "00000000-0000-8000-8000-0000000000aa"

static struct bf_conf conf;
static struct bf_core *core;

static void start(void)
{
    bool created;
    setup();
    cr_assert_eq(bf_conf_set_defaults(&conf), 0);
    conf.shards = 2;
    cr_assert_eq(bf_core_create(&conf, store, NULL, &core), 0);
    cr_assert_eq(bf_core_put_user(core, uid("acme", "ann"), BF_BYTES("{}"), &created), 0);
}

static void stop(void)
{
    bf_core_destroy(core);
    teardown();
}

TestSuite(redrive, .init = start, .fini = stop, .timeout = 60);

static void put_letter(uint64_t at_ms, const char *body)
{
    uint8_t bytes[BF_EVENT_META_BYTES_MAX];
    struct bf_event_meta meta = {.accepted_ms = 1234, .tenant = "acme"};
    struct bf_dlq_row row = {.at_ms = at_ms,
                             .event_id = id_of(1),
                             .channel = BF_CHANNEL_PUSH,
                             .reason = text("BadTopic: x"),
                             .body = text(body),
                             .meta = {(const char *)bytes, bf_event_meta_encode(&meta, bytes)}};
    struct bf_batch *b = bf_batch_create(store);
    bf_batch_put_dlq(b, &row);
    write_batch(b);
    bf_batch_destroy(b);
}

static char *body_of(const char *user, const char *device, uint64_t expires_ms, unsigned redrive)
{
    static char text[512];
    snprintf(
        text, sizeof(text),
        "{\"tenant\":\"acme\",\"user_id\":\"%s\",\"device_id\":\"%s\",\"lane\":\"bulk\","
        "\"expires\":%llu,\"redrive\":%u,\"notification\":{\"type\":\"t\",\"title\":\"caf\u00e9\","
        "\"data\":{\"n\":12345678901234567890123}},\"overrides\":{\"apns\":{\"x\":1}}}",
        user, device, (unsigned long long)expires_ms, redrive);
    return text;
}

static int first_tag(void *arg, const struct bf_dlq_row *row)
{
    *(uint64_t *)arg = row->tag;
    return 1;
}

static int tag_of_device(void *arg, const struct bf_dlq_row *row)
{
    if (memmem(row->body.at, row->body.len, DEVICE, strlen(DEVICE)))
        *(uint64_t *)arg = row->tag;
    return 0;
}

static int redrive(uint64_t at_ms)
{
    struct bf_id event_id = id_of(1);
    uint64_t tag = 0;
    bf_store_walk_dlq(store, BF_CHANNEL_PUSH, at_ms - 1, first_tag, &tag);
    return bf_core_redrive_leg(core, BF_CHANNEL_PUSH, at_ms, &event_id, tag);
}

static int check_row(void *arg, const struct bf_leg_row *row)
{
    struct bf_id expected, event_id = id_of(1), device;
    struct bf_event_meta meta;
    (*(int *)arg)++;
    cr_assert(bf_id_parse(DEVICE, strlen(DEVICE), &device));
    bf_message_id(&event_id, text("acme"), text("ann"), BF_CHANNEL_PUSH,
                  (struct bf_bytes){(const char *)device.bytes, 16}, 3, &expected);
    cr_assert(bf_id_is_equal(&row->message_id, &expected), "it was redriven twice before");
    cr_assert(bf_id_is_equal(&row->endpoint_id, &device));
    cr_assert_eq(row->partition, bf_store_partition_of(store, row->uid));
    cr_assert_eq(row->channel, BF_CHANNEL_PUSH);
    cr_assert_eq(row->kind, BF_LEG_SEND);
    cr_assert(bf_bytes_is_equal(row->type, text("t")), "preferences are about it");
    cr_assert_eq(row->lane, BF_LANE_BULK);
    cr_assert_eq(row->created_ms, 1234);
    cr_assert_eq(row->expires_ms, FAR);
    cr_assert_eq(row->attempts, 0);
    cr_assert_eq(row->collapse, 0);
    cr_assert_leq(row->not_before_ms, bf_wall_ms());
    cr_assert(
        bf_bytes_is_equal(row->fragment, text("\"type\":\"t\",\"title\":\"caf\u00e9\",\"data\":"
                                              "{\"n\":12345678901234567890123}")),
        "%.*s", (int)row->fragment.len, row->fragment.at);
    cr_assert(bf_bytes_is_equal(row->overrides, text("{\"apns\":{\"x\":1}}")));
    cr_assert_eq(bf_event_meta_decode((const uint8_t *)row->meta.at, row->meta.len, &meta), 0);
    cr_assert_str_eq(meta.tenant, "acme");
    return 0;
}

Test(redrive, a_letter_becomes_a_row)
{
    int rows = 0;
    struct bf_id event_id = id_of(1);
    put_letter(100, body_of("ann", DEVICE, FAR, 2));
    put_letter(100, body_of("ann", "00000000-0000-8000-8000-0000000000bb", FAR, 0));
    cr_assert_eq(bf_store_dlq_depth(store, BF_CHANNEL_PUSH), 2);
    uint64_t tag = 0;
    bf_store_walk_dlq(store, BF_CHANNEL_PUSH, 0, tag_of_device, &tag);
    cr_assert_neq(tag, 0);
    cr_assert_eq(bf_core_redrive_leg(core, BF_CHANNEL_PUSH, 100, &event_id, tag), 0);
    cr_assert_eq(bf_store_dlq_depth(store, BF_CHANNEL_PUSH), 1, "the other device's stays");
    cr_assert_eq(bf_store_walk_legs_of(store, uid("acme", "ann"), &event_id, check_row, &rows), 0);
    cr_assert_eq(rows, 1);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_BULK), 1);
    cr_assert_eq(bf_core_redrive_leg(core, BF_CHANNEL_PUSH, 100, &event_id, tag), BF_ERR_NOT_FOUND,
                 "it has gone");
}

Test(redrive, what_cannot_go_stays)
{
    put_letter(100, body_of("ann", DEVICE, bf_wall_ms() - 1, 0));
    cr_assert_eq(redrive(100), BF_ERR_EXPIRED);
    put_letter(200, body_of("bob", DEVICE, FAR, 0));
    cr_assert_eq(redrive(200), BF_ERR_UNKNOWN_USER);
    put_letter(300, "not json");
    cr_assert_eq(redrive(300), BF_ERR_CORRUPT);
    put_letter(400, body_of("ann", "7", FAR, 0));
    cr_assert_eq(redrive(400), BF_ERR_CORRUPT);
    cr_assert_eq(bf_store_dlq_depth(store, BF_CHANNEL_PUSH), 4);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_BULK), 0);
}

Test(redrive, of_an_erased_user_nothing_is_left)
{
    bool created;
    put_letter(100, body_of("ann", DEVICE, FAR, 0));
    cr_assert_eq(bf_core_erase_user(core, uid("acme", "ann"), BF_BYTES("test")), 0);
    cr_assert_eq(bf_core_put_user(core, uid("acme", "ann"), BF_BYTES("{}"), &created), 0);
    cr_assert(created, "somebody else by the same name");
    cr_assert_eq(redrive(100), BF_ERR_UNKNOWN_USER);
    cr_assert_eq(bf_store_dlq_depth(store, BF_CHANNEL_PUSH), 0);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_BULK), 0);
}
