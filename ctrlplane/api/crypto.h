/*
 * What the control process needs of cryptography, and its only file that uses OpenSSL: SHA-256 of API
 * keys, and users' JWTs (the rules of DESIGN 5: exp required, aud and nbf checked, leeway, one alg a
 * key, key by kid). A key set is immutable: any thread verifies with it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/limits.h"

struct bf_conf;
struct bf_token_keys;

#define BF_SHA256_BYTES  32u
#define BF_TOKEN_BYTES_MAX 8192u

void bf_sha256(struct bf_bytes text, uint8_t out[BF_SHA256_BYTES]);
bool bf_is_same_secret(const uint8_t *a, const uint8_t *b, size_t len); /* constant time */
/* Bytes nobody can guess (getrandom). */
void bf_random(void *out, size_t len);

struct bf_user_claims {
    char user[BF_USER_ID_BYTES_MAX + 1];
    size_t user_len;
    char tenant[BF_TENANT_BYTES_MAX + 1];
    uint64_t expires_s;
};

enum bf_token_verdict {
    BF_TOKEN_OK = 0,
    BF_TOKEN_MALFORMED,
    BF_TOKEN_UNKNOWN_KEY,
    BF_TOKEN_BAD_SIGNATURE,
    BF_TOKEN_EXPIRED,
    BF_TOKEN_NOT_YET,
    BF_TOKEN_AUDIENCE,
    BF_TOKEN_VERDICT_COUNT
};
const char *bf_token_verdict_text(enum bf_token_verdict verdict);

/* From conf's keys and audience. Returns 0, or BF_ERR_MALFORMED with one line in |err|. */
int bf_token_keys_create(const struct bf_conf *conf, struct bf_token_keys **ret, char *err,
                      size_t err_len);
void bf_token_keys_destroy(struct bf_token_keys *set); /* NULL is fine */
enum bf_token_verdict bf_token_keys_verify(const struct bf_token_keys *set, struct bf_bytes token,
                                      uint64_t now_s, struct bf_user_claims *ret_claims);

/* Whether tls.certificates, tls.client_ca and those of api.tls can be used: certificates and chains parse, each key belongs
 * to its certificate, none is over. Returns 0, or BF_ERR_MALFORMED with one line in |err|. */
int bf_certificates_check(const struct bf_conf *conf, char *err, size_t err_len);

/* HS256 token over a JSON payload: `belfryctl token`. malloc'ed text (caller frees), or NULL. */
char *bf_token_sign_hs256(const char *kid, struct bf_bytes payload, struct bf_bytes secret);

/* Base64url without padding. Encode writes at most (len * 4 + 2) / 3 characters, no terminator; decode
 * returns bytes or -1 (foreign characters, left-over bits, too long). */
size_t bf_base64url_encode(const uint8_t *in, size_t len, char *out);
long bf_base64url_decode(struct bf_bytes in, uint8_t *out, size_t cap);
