/*
 * Encrypts device tokens for storage (AES-256-GCM), and makes the keyed hash by which they are
 * found. A vault does not change once it is open: any thread may use it.
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
/* |out| has plain.len + BF_VAULT_EXTRA_BYTES bytes. |bound| is authenticated but not stored: only
 * with the same |bound|, i.e. for the same row, can it be decrypted. 0, or BF_ERR_CORRUPT if
 * OpenSSL fails. */
int bf_vault_seal(const struct bf_vault *vault, struct bf_bytes bound, struct bf_bytes plain,
                  uint8_t *out);
/* |out| has sealed.len bytes. BF_ERR_CORRUPT: another key, another row, or damage. */
int bf_vault_unseal(const struct bf_vault *vault, struct bf_bytes bound, struct bf_bytes sealed,
                    uint8_t *out, size_t *ret_len);
/* Keyed hash: without the key, an index of these hashes tells nothing. */
void bf_vault_hash(const struct bf_vault *vault, struct bf_bytes text,
                   uint8_t out[BF_VAULT_HASH_BYTES]);
