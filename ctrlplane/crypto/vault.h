/*
 * What keeps device tokens encrypted at rest (AES-256-GCM), and finds them by a keyed hash. A vault
 * is immutable once it is open: any thread uses it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

#define BF_VAULT_KEY_BYTES  32u
#define BF_VAULT_HASH_BYTES 16u
/* version, nonce, tag */
#define BF_VAULT_EXTRA_BYTES (1u + 12u + 16u)

struct bf_vault {
    uint8_t seal_key[BF_VAULT_KEY_BYTES]; /* both derived from the key of the file */
    uint8_t hash_key[BF_VAULT_KEY_BYTES];
};

void bf_vault_init(struct bf_vault *vault, const uint8_t key[BF_VAULT_KEY_BYTES]);
/*
 * Reads the key (64 hex digits) from |path|; a file that is missing is made, with a fresh key and
 * mode 0600. Returns 0, or -errno / BF_ERR_MALFORMED / BF_ERR_DENIED (others can read it) with a
 * line in |err|.
 */
int bf_vault_open(const char *path, struct bf_vault *ret, char *err, size_t err_len);
/* |out| has plain.len + BF_VAULT_EXTRA_BYTES bytes. |bound| is authenticated, not stored: the same
 * row only. 0, or BF_ERR_CORRUPT if OpenSSL fails. */
int bf_vault_seal(const struct bf_vault *vault, struct bf_bytes bound, struct bf_bytes plain,
                  uint8_t *out);
/* |out| has sealed.len bytes. BF_ERR_CORRUPT: another key, another row, or damage. */
int bf_vault_unseal(const struct bf_vault *vault, struct bf_bytes bound, struct bf_bytes sealed,
                    uint8_t *out, size_t *ret_len);
/* Keyed hash: an index that tells nothing without the key. */
void bf_vault_hash(const struct bf_vault *vault, struct bf_bytes text,
                   uint8_t out[BF_VAULT_HASH_BYTES]);
