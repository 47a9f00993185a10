/*
 * JWTs that the control process signs: for APNs and VAPID (ES256), for service accounts (RS256).
 * Keys are immutable once made: any thread uses them.
 */
#pragma once

#include "belfry/base/cursor.h"
#include "belfry/shm/snapshot.h"

#define BF_P256_PUBLIC_BYTES 65u /* uncompressed point */

struct bf_sign_key;

/* A private key in PEM (PKCS#8, or the older forms): P-256 for BF_JWT_ES256, RSA of 2048 bits and
 * more for BF_JWT_RS256. Returns 0, BF_ERR_MALFORMED (not such a key), or BF_ERR_UNSUPPORTED. */
int bf_sign_key_read(struct bf_bytes pem, enum bf_jwt_alg alg, struct bf_sign_key **ret);
void bf_sign_key_free(struct bf_sign_key *key); /* NULL is fine */
/* The public point of an ES256 key, as VAPID shows it. */
int bf_sign_key_public(const struct bf_sign_key *key, uint8_t out[BF_P256_PUBLIC_BYTES]);
/* Compact JWS (RFC 7515): malloc'ed text, terminated (caller frees), or NULL. ES256 signs R || S.
 */
char *bf_sign_jwt(const struct bf_sign_key *key, struct bf_bytes header_json,
                  struct bf_bytes payload_json);
