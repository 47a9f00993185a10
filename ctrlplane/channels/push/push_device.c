/* See push_device.h. */
#include "channels/push/push_device.h"

#include <string.h>

#include "crypto/hash.h"
#include "crypto/vault.h"
#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "ingest/event.h"
#include "json/json.h"
#include "time/rfc3339.h"

/* Tenant, user, app, name: each with its length. */
#define ID_TEXT_BYTES                                                                              \
    (BF_TENANT_BYTES_MAX + BF_USER_ID_BYTES_MAX + BF_DEVICE_APP_BYTES_MAX + BF_DEVICE_BYTES_MAX +  \
     32u)
/* Every escape of the longest texts fits. */
_Static_assert(BF_PUSH_EVENT_BYTES_MAX >
                   6 * BF_USER_ID_BYTES_MAX + 2 * BF_DEVICE_REASON_BYTES_MAX + 400,
               "an event fits its buffer");

void bf_push_device_id(struct bf_device_row *row)
{
    uint8_t text[ID_TEXT_BYTES], hash[BF_SHA256_BYTES];
    struct bf_writer w = {.buf = text, .cap = sizeof(text)};
    bf_put_str16(&w, row->uid.tenant);
    bf_put_str16(&w, row->uid.user);
    bf_put_str16(&w, row->app);
    bf_put_str16(&w, row->name);
    if (row->name.len == 0)
        bf_put_raw(&w, row->token_hash, sizeof(row->token_hash));
    BF_BUG_ON(w.failed);
    bf_sha256((struct bf_bytes){(char *)text, w.len}, hash);
    memcpy(row->id.bytes, hash, sizeof(row->id.bytes));
    bf_id_seal(&row->id);
}

void bf_push_device_hash(const struct bf_vault *vault, const struct bf_device_row *row,
                         struct bf_bytes token, bool is_tenants, uint8_t out[BF_VAULT_HASH_BYTES])
{
    uint8_t text[BF_TENANT_BYTES_MAX + BF_DEVICE_APP_BYTES_MAX + BF_PUSH_TOKEN_BYTES_MAX + 16];
    struct bf_writer w = {.buf = text, .cap = sizeof(text)};
    bf_put_str16(&w, is_tenants ? row->uid.tenant : BF_BYTES(""));
    bf_put_u8(&w, row->kind);
    bf_put_str16(&w, row->app);
    bf_put_bytes(&w, token);
    BF_BUG_ON(w.failed);
    bf_vault_hash(vault, (struct bf_bytes){(char *)text, w.len}, out);
    explicit_bzero(text, sizeof(text));
}

/* What a seal is bound to: the row's key. */
static struct bf_bytes bound_to(const struct bf_device_row *row, uint8_t text[ID_TEXT_BYTES])
{
    struct bf_writer w = {.buf = text, .cap = ID_TEXT_BYTES};
    bf_put_str16(&w, row->uid.tenant);
    bf_put_str16(&w, row->uid.user);
    bf_put_raw(&w, row->id.bytes, sizeof(row->id.bytes));
    BF_BUG_ON(w.failed);
    return (struct bf_bytes){(char *)text, w.len};
}

int bf_push_device_seal(const struct bf_vault *vault, struct bf_device_row *row,
                        const struct bf_push_target *target,
                        uint8_t room[BF_DEVICE_SEALED_BYTES_MAX])
{
    uint8_t text[BF_DEVICE_SEALED_BYTES_MAX - BF_VAULT_EXTRA_BYTES], bound[ID_TEXT_BYTES];
    struct bf_writer w = {.buf = text, .cap = sizeof(text)};
    bf_put_str16(&w, target->token);
    bf_put_str16(&w, target->p256dh);
    bf_put_str16(&w, target->auth);
    if (w.failed)
        return BF_ERR_TOO_LARGE;
    int rc =
        bf_vault_seal(vault, bound_to(row, bound), (struct bf_bytes){(char *)text, w.len}, room);
    explicit_bzero(text, sizeof(text));
    row->sealed = (struct bf_bytes){(char *)room, w.len + BF_VAULT_EXTRA_BYTES};
    return rc;
}

int bf_push_device_open(const struct bf_vault *vault, const struct bf_device_row *row,
                        uint8_t room[BF_DEVICE_SEALED_BYTES_MAX], struct bf_push_target *ret)
{
    uint8_t bound[ID_TEXT_BYTES];
    size_t len = 0;
    if (row->sealed.len > BF_DEVICE_SEALED_BYTES_MAX ||
        bf_vault_unseal(vault, bound_to(row, bound), row->sealed, room, &len) != 0)
        return BF_ERR_CORRUPT;
    struct bf_reader r = {.buf = room, .len = len};
    struct bf_push_target target = {.kind = (enum bf_push_kind)row->kind,
                                    .platform = (enum bf_platform)row->platform};
    target.token = bf_get_str16(&r);
    target.p256dh = bf_get_str16(&r);
    target.auth = bf_get_str16(&r);
    if (r.failed || r.at != r.len)
        return BF_ERR_CORRUPT;
    *ret = target;
    return 0;
}

static void put_text(struct bf_writer *w, const char *key, struct bf_bytes value)
{
    bf_put_raw(w, key, strlen(key));
    bf_json_put_str(w, value);
}

static struct bf_bytes cstr(const char *text)
{
    return (struct bf_bytes){text, strlen(text)};
}

size_t bf_push_device_event(const struct bf_device_row *row, const char *event, uint64_t at_ms,
                            char out[BF_PUSH_EVENT_BYTES_MAX])
{
    char id[BF_UUID_TEXT_BYTES], at[BF_RFC3339_BYTES_MAX];
    struct bf_writer w = {.buf = (uint8_t *)out, .cap = BF_PUSH_EVENT_BYTES_MAX};
    bf_id_text(&row->id, id);
    bf_rfc3339_format(at_ms, at);
    put_text(&w, "{\"event\":", cstr(event));
    if (row->uid.tenant.len > 0)
        put_text(&w, ",\"tenant\":", row->uid.tenant);
    put_text(&w, ",\"user_id\":", row->uid.user);
    put_text(&w, ",\"device_id\":", (struct bf_bytes){id, sizeof(id)});
    if (row->app.len > 0) { /* of a deleted one nothing is known but its id */
        put_text(&w, ",\"provider\":", cstr(bf_push_kind_name((enum bf_push_kind)row->kind)));
        put_text(&w, ",\"platform\":", cstr(bf_platform_name((enum bf_platform)row->platform)));
        put_text(&w, ",\"app\":", row->app);
    }
    if (row->reason.len > 0)
        put_text(&w, ",\"reason\":", row->reason);
    put_text(&w, ",\"at\":", cstr(at));
    bf_put_u8(&w, '}');
    BF_BUG_ON(w.failed);
    return w.len;
}
