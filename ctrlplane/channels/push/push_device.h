/*
 * Between the registry's rows and the adapters' targets: sealing and opening tokens, the id of a
 * device, and what `belfry.tokens` tells about it. Any thread.
 */
#pragma once

#include "crypto/vault.h"
#include "channels/push/push_note.h"
#include "store/devices.h"

/* The device's id: of its user, app and name; without a name of its token. So a repeat finds its
 * row, and a named device replaces its token. */
void bf_push_device_id(struct bf_device_row *row);

/* Hash of the token, which is in its one form (push_canon.h), within its provider and app: a phone.
 * |is_tenants|: within its tenant too (push.tenant_tokens). */
void bf_push_device_hash(const struct bf_vault *vault, const struct bf_device_row *row,
                         struct bf_bytes token, bool is_tenants, uint8_t out[BF_VAULT_HASH_BYTES]);

/* Seals |target|'s token and keys for the row (uid, id, kind are set) into |room|, which
 * row->sealed is then borrowed. 0, BF_ERR_TOO_LARGE, BF_ERR_CORRUPT. */
int bf_push_device_seal(const struct bf_vault *vault, struct bf_device_row *row,
                        const struct bf_push_target *target,
                        uint8_t room[BF_DEVICE_SEALED_BYTES_MAX]);
/* The row as a target: kind, platform, token and keys, borrowed from |room|. The app's topic is the
 * caller's. BF_ERR_CORRUPT: sealed with another key, or for another row. */
int bf_push_device_open(const struct bf_vault *vault, const struct bf_device_row *row,
                        uint8_t room[BF_DEVICE_SEALED_BYTES_MAX], struct bf_push_target *ret);

/* What happened to a device, as belfry.tokens has it; never the token. Returns its length. */
#define BF_PUSH_EVENT_BYTES_MAX 1536u
size_t bf_push_device_event(const struct bf_device_row *row, const char *event, uint64_t at_ms,
                            char out[BF_PUSH_EVENT_BYTES_MAX]);
