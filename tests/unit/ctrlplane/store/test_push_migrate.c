/*
 * Proves that device rows of a former version (hashed with their tenant, in whatever spelling) are
 * found under their one form after a start; that one phone in two spellings is one row, of who
 * registered it last, with what waited for it; that a kill in between or a second start changes
 * nothing.
 */
#include "store_fixture.h"

#include "channels/table/channels.h"
#include "channels/push/push_device.h"
#include "channels/push/push_migrate.h"
#include "crypto/vault.h"
#include "ingest/event.h"
#include "store/devices.h"
#include "store/legs.h"

TestSuite(push_migrate, .init = setup, .fini = teardown, .timeout = 120);

#define NOW   UINT64_C(1700000000000)
#define UPPER "A1B2C3D4"
#define LOWER "a1b2c3d4"

static struct bf_vault vault;

/* As a version before this one wrote it. */
static struct bf_id plant(const char *tenant, const char *user, const char *token, uint64_t at_ms)
{
    struct bf_device_row row = {.uid = uid(tenant, user),
                                .kind = BF_PUSH_APNS,
                                .created_ms = at_ms,
                                .registered_ms = at_ms,
                                .seen_ms = at_ms,
                                .app = text("app")};
    struct bf_push_target target = {.kind = BF_PUSH_APNS, .token = text(token)};
    uint8_t room[BF_DEVICE_SEALED_BYTES_MAX], key[BF_VAULT_KEY_BYTES] = {7};
    bf_vault_init(&vault, key);
    bf_push_device_hash(&vault, &row, target.token, true, row.token_hash);
    bf_push_device_id(&row);
    cr_assert_eq(bf_push_device_seal(&vault, &row, &target, room), 0);
    struct bf_batch *b = bf_batch_create(store);
    bf_batch_put_device(b, &row);
    write_batch(b);
    bf_batch_destroy(b);
    return row.id;
}

static struct bf_push_migrated migrate(void)
{
    struct bf_push_migrated done;
    cr_assert_eq(bf_push_devices_migrate(store, &vault, false, &done), 0);
    return done;
}

struct found {
    int count;
    char user[8][64], token[8][64];
    struct bf_id id[8];
};

static int note(void *arg, const struct bf_device_row *row)
{
    struct found *f = arg;
    uint8_t room[BF_DEVICE_SEALED_BYTES_MAX];
    struct bf_push_target target;
    cr_assert_eq(bf_push_device_open(&vault, row, room, &target), 0);
    snprintf(f->user[f->count], 64, "%.*s/%.*s", (int)row->uid.tenant.len, row->uid.tenant.at,
             (int)row->uid.user.len, row->uid.user.at);
    snprintf(f->token[f->count], 64, "%.*s", (int)target.token.len, target.token.at);
    f->id[f->count++] = row->id;
    return 0;
}

static struct found all(void)
{
    struct found f = {0};
    cr_assert_eq(bf_store_walk_all_devices(store, note, &f), 0);
    return f;
}

static struct found holder(const char *token)
{
    struct found f = {0};
    struct bf_device_row row = {.kind = BF_PUSH_APNS, .app = text("app")};
    bf_push_device_hash(&vault, &row, text(token), false, row.token_hash);
    (void)bf_store_find_device(store, row.token_hash, note, &f);
    return f;
}

static void queue(const char *tenant, const char *user, uint64_t event, struct bf_id device)
{
    struct bf_leg_row row = {.lane = BF_LANE_NORMAL,
                             .channel = BF_CHANNEL_PUSH,
                             .not_before_ms = NOW,
                             .uid = uid(tenant, user),
                             .event_id = id_of(event),
                             .endpoint_id = device,
                             .created_ms = NOW,
                             .expires_ms = NOW * 2,
                             .fragment = text("\"title\":\"x\"")};
    bf_leg_message_id(&row);
    struct bf_batch *b = bf_batch_create(store);
    bf_batch_put_leg(b, &row);
    write_batch(b);
    bf_batch_destroy(b);
}

struct waiting {
    int count, of_device;
    struct bf_id device;
};

static int count_waiting(void *arg, const struct bf_leg_row *row)
{
    struct waiting *w = arg;
    w->count++;
    w->of_device += bf_id_is_equal(&row->endpoint_id, &w->device);
    return 0;
}

static struct waiting waiting_for(const char *tenant, const char *user, struct bf_id device)
{
    struct waiting w = {.device = device};
    cr_assert_eq(bf_store_walk_legs_of(store, uid(tenant, user), NULL, count_waiting, &w), 0);
    return w;
}

Test(push_migrate, spellings_and_tenants)
{
    struct bf_id id = plant("t", "ann", UPPER, NOW);
    plant("", "bob", "ffee", NOW); /* has its form already */
    struct bf_push_migrated done = migrate();
    cr_assert_eq(done.rows, 2);
    cr_assert_eq(done.changed, 1);
    cr_assert_eq(done.merged, 0);
    struct found f = holder(LOWER);
    cr_assert_eq(f.count, 1);
    cr_assert_str_eq(f.user[0], "t/ann");
    cr_assert_str_eq(f.token[0], LOWER);
    cr_assert(bf_id_is_equal(&f.id[0], &id), "what waits for it names its id");
    cr_assert_eq(holder("ffee").count, 1);
    reopen();
    cr_assert_eq(migrate().rows, 0, "once");
}

Test(push_migrate, one_phone_in_two_spellings)
{
    struct bf_id first = plant("t", "ann", UPPER, NOW), second = plant("t", "ann", LOWER, NOW + 5);
    cr_assert(!bf_id_is_equal(&first, &second));
    queue("t", "ann", 1, first);
    queue("t", "ann", 2, first);
    queue("t", "ann", 2, second); /* both spellings got this one: it was to be sent twice */
    struct bf_push_migrated done = migrate();
    cr_assert_eq(done.merged, 1);
    struct found f = all();
    cr_assert_eq(f.count, 1);
    cr_assert(bf_id_is_equal(&f.id[0], &second), "the one registered last");
    cr_assert_eq(holder(LOWER).count, 1);
    struct waiting w = waiting_for("t", "ann", second);
    cr_assert_eq(w.count, 2);
    cr_assert_eq(w.of_device, 2);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_NORMAL), 2);
}

/* The phone changed hands in another spelling, or between tenants: the former user's row goes,
 * whichever of the two the walk meets first. */
Test(push_migrate, two_holders)
{
    plant("t", "ann", UPPER, NOW + 9);
    plant("t", "zoe", LOWER, NOW);
    plant("s", "kim", "FFEE", NOW);
    plant("u", "kim", "ffee", NOW + 9);
    cr_assert_eq(migrate().merged, 2);
    struct found f = all();
    cr_assert_eq(f.count, 2);
    cr_assert_str_eq(holder(LOWER).user[0], "t/ann");
    cr_assert_str_eq(holder("ffee").user[0], "u/kim");
}

/* Killed after any row: the value that says "done" is not there, and the rest follows. */
Test(push_migrate, killed_in_between)
{
    for (int killed_after = 0; killed_after < 3; killed_after++) {
        const char *const users[] = {"ann", "bob", "cid"};
        for (int i = 0; i < 3; i++)
            plant("t", users[i], i < killed_after ? LOWER : UPPER, NOW + (uint64_t)i);
        struct bf_batch *b = bf_batch_create(store);
        bf_batch_put_value(b, text("devices.form"), text("0 of before"));
        write_batch(b);
        bf_batch_destroy(b);
        (void)migrate();
        struct found f = all();
        cr_assert_eq(f.count, 1);
        cr_assert_str_eq(f.user[0], "t/cid");
        cr_assert_eq(holder(LOWER).count, 1);
    }
}

Test(push_migrate, another_key)
{
    plant("t", "ann", UPPER, NOW);
    uint8_t other[BF_VAULT_KEY_BYTES] = {9};
    bf_vault_init(&vault, other);
    struct bf_push_migrated done = migrate();
    cr_assert_eq(done.unreadable, 1);
    cr_assert_eq(done.changed, 0);
}

/* The option turned on: of each tenant one user again. */
Test(push_migrate, scope_of_tenants)
{
    struct bf_push_migrated done;
    plant("t", "ann", LOWER, NOW);
    (void)migrate();
    cr_assert_eq(holder(LOWER).count, 1);
    cr_assert_eq(bf_push_devices_migrate(store, &vault, true, &done), 0);
    cr_assert_eq(done.changed, 1);
    cr_assert_eq(holder(LOWER).count, 0);
    cr_assert_eq(all().count, 1);
}
