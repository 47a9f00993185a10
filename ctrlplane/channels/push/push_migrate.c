/* See push_migrate.h. */
#include "channels/push/push_migrate.h"

#include <string.h>

#include "belfry/base/err.h"
#include "channels/channel.h"
#include "channels/push/push_canon.h"
#include "channels/push/push_device.h"
#include "store/devices.h"
#include "store/legs.h"

/* Raised when the one form of something changes. */
#define FORM         "1"
#define FORM_NODE    FORM " node"
#define FORM_TENANTS FORM " tenant"
static const struct bf_bytes form_name = {"devices.form", sizeof("devices.form") - 1};

struct migration {
    struct bf_store *store;
    const struct bf_vault *vault;
    struct bf_batch *batch;
    bool is_tenants;
    struct bf_push_migrated *count;
};

static bool is_user(const struct bf_device_row *a, const struct bf_device_row *b)
{
    return bf_bytes_is_equal(a->uid.tenant, b->uid.tenant) &&
           bf_bytes_is_equal(a->uid.user, b->uid.user);
}

/* A row that is to be written, and who has its token by now. */
struct contest {
    struct migration *m;
    const struct bf_device_row *row;
    bool is_lost;
};

static void rename_row(void *arg, const struct bf_leg_row *was, struct bf_leg_row *is)
{
    (void)arg, (void)was;
    bf_leg_message_id(is);
}

/* Pushes that wait for |from| go to |to|: of one user they are the same phone; another user's end,
 * because their device is gone. */
static int give_pushes(struct migration *m, const struct bf_device_row *from,
                       const struct bf_device_row *to)
{
    if (!is_user(from, to))
        return 0;
    int rc = bf_batch_move_legs(m->batch, to->uid, &from->id, &to->id, rename_row, NULL);
    return rc < 0 ? rc : 0;
}

static int meet_holder(void *arg, const struct bf_device_row *holder)
{
    struct contest *c = arg;
    if (memcmp(holder->token_hash, c->row->token_hash, sizeof(holder->token_hash)) != 0 ||
        (is_user(holder, c->row) && bf_id_is_equal(&holder->id, &c->row->id)))
        return 0; /* nobody but itself */
    c->m->count->merged++;
    c->is_lost = holder->registered_ms >= c->row->registered_ms;
    int rc = c->is_lost ? give_pushes(c->m, c->row, holder) : give_pushes(c->m, holder, c->row);
    if (rc == 0 && c->is_lost)
        rc = bf_batch_delete_device(c->m->batch, c->row->uid, &c->row->id);
    return rc;
}

static int write_again(struct migration *m, const struct bf_device_row *row)
{
    struct contest c = {.m = m, .row = row};
    int rc = bf_store_find_device(m->store, row->token_hash, meet_holder, &c);
    if (rc == BF_ERR_NOT_FOUND)
        rc = 0; /* nobody has it, or the index names a row that is gone */
    if (rc == 0 && !c.is_lost)
        bf_batch_put_device(m->batch, row); /* another holder's row goes with it */
    if (rc == 0)
        rc = bf_batch_write(m->batch, false);
    else
        bf_batch_clear(m->batch);
    m->count->changed++;
    return rc;
}

static int exists(void *arg, const struct bf_device_row *holder)
{
    const struct bf_device_row *row = arg;
    return is_user(holder, row) && bf_id_is_equal(&holder->id, &row->id) ? 1 : 0;
}

/* |stored| as it is now. */
static int bring_to_form(void *arg, const struct bf_device_row *stored)
{
    struct migration *m = arg;
    uint8_t room[BF_DEVICE_SEALED_BYTES_MAX], sealed[BF_DEVICE_SEALED_BYTES_MAX];
    struct bf_device_row row = *stored;
    struct bf_push_target target;
    struct bf_push_canon canon;
    char why[BF_WHY_BYTES];
    if (bf_push_device_open(m->vault, stored, room, &target) != 0) {
        m->count->unreadable++;
        return 0;
    }
    struct bf_bytes before = target.token;
    bf_push_target_canon(&target, &canon);
    target.app_topic = BF_BYTES("app"); /* is checked where apps are configured */
    if (bf_push_target_check(&target, why) != 0)
        target.token = before; /* it was no good before and dies at its next push */
    bool is_same = bf_bytes_is_equal(before, target.token);
    bf_push_device_hash(m->vault, &row, target.token, m->is_tenants, row.token_hash);
    if (is_same && memcmp(row.token_hash, stored->token_hash, sizeof(row.token_hash)) == 0 &&
        bf_store_find_device(m->store, row.token_hash, exists, &row) == 1)
        return 0;
    int rc = bf_push_device_seal(m->vault, &row, &target, sealed);
    explicit_bzero(room, sizeof(room));
    explicit_bzero(&canon, sizeof(canon));
    return rc == 0 ? write_again(m, &row) : rc;
}

/* The walk sees the store as it was: what was merged since is gone. */
static int migrate_one(void *arg, const struct bf_device_row *seen)
{
    struct migration *m = arg;
    m->count->rows++;
    int rc = bf_store_get_device(m->store, seen->uid, &seen->id, bring_to_form, m);
    return rc == BF_ERR_NOT_FOUND ? 0 : rc;
}

int bf_push_devices_migrate(struct bf_store *store, const struct bf_vault *vault, bool is_tenants,
                            struct bf_push_migrated *ret)
{
    struct bf_bytes form = is_tenants ? BF_BYTES(FORM_TENANTS) : BF_BYTES(FORM_NODE);
    struct migration m = {.store = store, .vault = vault, .is_tenants = is_tenants, .count = ret};
    uint8_t stored[32];
    size_t len = 0;
    *ret = (struct bf_push_migrated){0};
    if (bf_store_get_value(store, form_name, stored, sizeof(stored), &len) == 0 &&
        bf_bytes_is_equal(form, (struct bf_bytes){(char *)stored, len}))
        return 0;
    m.batch = bf_batch_create(store);
    if (!m.batch)
        return BF_ERR_NO_MEMORY;
    int rc = bf_store_walk_all_devices(store, migrate_one, &m);
    if (rc == 0) {
        bf_batch_put_value(m.batch, form_name, form);
        rc = bf_batch_write(m.batch, true);
    }
    bf_batch_destroy(m.batch);
    return rc;
}
