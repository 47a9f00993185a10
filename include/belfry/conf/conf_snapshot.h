/*
 * The TLS records of a snapshot (shm/snapshot.h), written alike by the dataplane at its start and
 * by ctrlplane afterwards. Pure; any thread.
 */
#pragma once

#include <string.h>

#include "belfry/base/cursor.h"
#include "belfry/conf/conf.h"
#include "belfry/shm/snapshot.h"

/* A ticket key serves this long, and opens tickets for as long again; a ticket lives two hours. */
#define BF_TICKET_KEY_MS (UINT64_C(12) * 3600u * 1000u)

static inline void bf_conf_put_cert(struct bf_writer *w, const struct bf_conf_cert *cert)
{
    size_t bytes = 4 + cert->chain_len + 4 + cert->key_len + 1;
    for (uint32_t i = 0; i < cert->name_count; i++)
        bytes += 2 + strlen(cert->names[i]);
    bf_put_u16(w, BF_SNAP_TLS_CERT);
    bf_put_u32(w, (uint32_t)bytes);
    bf_put_str32(w, (struct bf_bytes){.at = (const char *)cert->chain, .len = cert->chain_len});
    bf_put_str32(w, (struct bf_bytes){.at = (const char *)cert->key, .len = cert->key_len});
    bf_put_u8(w, (uint8_t)cert->name_count);
    for (uint32_t i = 0; i < cert->name_count; i++)
        bf_put_str16(w, (struct bf_bytes){.at = cert->names[i], .len = strlen(cert->names[i])});
}

/* Certificates and options; the ticket keys are the caller's. Nothing where there are no
 * certificates.
 */
static inline void bf_conf_put_tls(struct bf_writer *w, const struct bf_conf *conf)
{
    if (conf->cert_count == 0)
        return;
    for (uint32_t i = 0; i < conf->cert_count; i++)
        bf_conf_put_cert(w, &conf->certs[i]);
    bf_put_u16(w, BF_SNAP_TLS_OPTIONS);
    bf_put_u32(w, 1 + 4 + conf->client_ca_len);
    bf_put_u8(w, (uint8_t)((conf->tls_tickets ? BF_SNAP_TLS_F_TICKETS : 0) |
                           (conf->tls_client_required ? BF_SNAP_TLS_F_REQUIRE : 0) |
                           (conf->tls_lean || conf->tls_kernel ? BF_SNAP_TLS_F_LEAN : 0) |
                           (conf->tls_kernel ? BF_SNAP_TLS_F_KERNEL : 0)));
    bf_put_str32(
        w, (struct bf_bytes){.at = (const char *)conf->client_ca, .len = conf->client_ca_len});
}

struct bf_ticket_key {
    uint64_t made_ms; /* wall */
    uint8_t bytes[BF_SNAP_TICKET_KEY_BYTES];
};

static inline void bf_conf_put_ticket_key(struct bf_writer *w, const struct bf_ticket_key *key)
{
    bf_put_u16(w, BF_SNAP_TLS_TICKET);
    bf_put_u32(w, 8 + sizeof(key->bytes));
    bf_put_u64(w, key->made_ms);
    bf_put_raw(w, key->bytes, sizeof(key->bytes));
}

/* The ticket keys of a snapshot, newest first; returns their number. */
static inline uint32_t bf_conf_get_ticket_keys(const uint8_t *content, size_t len,
                                               struct bf_ticket_key keys[BF_SNAP_TICKET_KEYS_MAX])
{
    struct bf_reader r = {.buf = content, .len = len};
    uint32_t count = 0;
    while (r.at < r.len && !r.failed && count < BF_SNAP_TICKET_KEYS_MAX) {
        uint16_t tag = bf_get_u16(&r);
        if (tag == BF_SNAP_END)
            break;
        struct bf_bytes value = bf_get_str32(&r);
        if (r.failed || tag != BF_SNAP_TLS_TICKET || value.len != 8 + BF_SNAP_TICKET_KEY_BYTES)
            continue;
        struct bf_reader v = {.buf = (const uint8_t *)value.at, .len = value.len};
        keys[count].made_ms = bf_get_u64(&v);
        memcpy(keys[count++].bytes, value.at + 8, BF_SNAP_TICKET_KEY_BYTES);
    }
    return count;
}
