/*
 * Cryptography of the push channel, and its only file that uses OpenSSL: Web Push encryption (RFC
 * 8291), signed JWTs for APNs and VAPID (ES256) and service accounts (RS256), and the vault that
 * keeps device tokens encrypted at rest (AES-256-GCM). Keys are immutable once made: any thread
 * uses them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/shm/snapshot.h"

/* ---- Web Push ------------------------------------------------------------------------------- */

#define BF_WEBPUSH_PUBLIC_BYTES 65u /* uncompressed P-256 point */
#define BF_WEBPUSH_AUTH_BYTES   16u
#define BF_WEBPUSH_SALT_BYTES   16u
#define BF_WEBPUSH_RECORD_BYTES 4096u
/* salt, record size, length of the key id, our public key (RFC 8188 section 2.1) */
#define BF_WEBPUSH_HEADER_BYTES (BF_WEBPUSH_SALT_BYTES + 4u + 1u + BF_WEBPUSH_PUBLIC_BYTES)
/* One record: services take 4,096 bytes (RFC 8030 section 7.2); 16 of tag, one delimiter. */
#define BF_WEBPUSH_PLAIN_BYTES_MAX   (BF_WEBPUSH_RECORD_BYTES - BF_WEBPUSH_HEADER_BYTES - 16u - 1u)
#define BF_WEBPUSH_BODY_BYTES(plain) (BF_WEBPUSH_HEADER_BYTES + (plain) + 1u + 16u)

/* Keys of a subscription, as the browser gave them. */
struct bf_webpush_keys {
    uint8_t p256dh[BF_WEBPUSH_PUBLIC_BYTES];
    uint8_t auth[BF_WEBPUSH_AUTH_BYTES];
};

/* What is fresh for each message; given only by tests with published vectors. */
struct bf_webpush_fresh {
    uint8_t private_key[32];
    uint8_t public_key[BF_WEBPUSH_PUBLIC_BYTES];
    uint8_t salt[BF_WEBPUSH_SALT_BYTES];
};

/* Base64url texts into keys. BF_ERR_MALFORMED: lengths are wrong, or not a point of the curve. */
int bf_webpush_keys_read(struct bf_bytes p256dh, struct bf_bytes auth,
                         struct bf_webpush_keys *ret_keys);

/*
 * Encrypts |plain| for one subscription into |out|, which has BF_WEBPUSH_BODY_BYTES(plain.len)
 * bytes. |fresh| NULL: made here. Returns 0, BF_ERR_TOO_LARGE above BF_WEBPUSH_PLAIN_BYTES_MAX, or
 * BF_ERR_MALFORMED when the subscription's key is not a point of the curve. About 60 us.
 */
int bf_webpush_seal(const struct bf_webpush_keys *keys, struct bf_bytes plain,
                    const struct bf_webpush_fresh *fresh, uint8_t *out);

/* ---- signed tokens -------------------------------------------------------------------------- */

struct bf_sign_key;

/* A private key in PEM (PKCS#8, or the older forms): P-256 for BF_JWT_ES256, RSA of 2048 bits and
 * more for BF_JWT_RS256. Returns 0, BF_ERR_MALFORMED (not such a key), or BF_ERR_UNSUPPORTED. */
int bf_sign_key_read(struct bf_bytes pem, enum bf_jwt_alg alg, struct bf_sign_key **ret);
void bf_sign_key_free(struct bf_sign_key *key); /* NULL is fine */
/* The public point of an ES256 key, as VAPID shows it. */
int bf_sign_key_public(const struct bf_sign_key *key, uint8_t out[BF_WEBPUSH_PUBLIC_BYTES]);
/* Compact JWS (RFC 7515): malloc'ed text, terminated (caller frees), or NULL. ES256 signs R || S.
 */
char *bf_sign_jwt(const struct bf_sign_key *key, struct bf_bytes header_json,
                  struct bf_bytes payload_json);
/* Whether |cert| (PEM, its chain behind it) belongs to |key| (PEM). */
bool bf_is_certificate_pair(struct bf_bytes cert, struct bf_bytes key);

/* ---- vault ---------------------------------------------------------------------------------- */

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
