/*
 * Users' JWTs, as the API takes them (the rules of DESIGN 5: exp required, aud and nbf checked,
 * leeway, one alg a key, key by kid). A key set is immutable: any thread verifies with it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/limits.h"
#include "belfry/jwt/jwt.h"

struct bf_conf;
struct bf_token_keys;

struct bf_user_claims {
    char user[BF_USER_ID_BYTES_MAX + 1];
    size_t user_len;
    char tenant[BF_TENANT_BYTES_MAX + 1];
    uint64_t expires_s;
};

/* The end of a sentence that begins with the token; static. */
const char *bf_token_verdict_text(enum bf_jwt_verdict verdict);

/* From conf's keys and audience. Returns 0, or BF_ERR_MALFORMED with one line in |err|. */
int bf_token_keys_create(const struct bf_conf *conf, struct bf_token_keys **ret, char *err,
                         size_t err_len);
void bf_token_keys_destroy(struct bf_token_keys *set); /* NULL is fine */
/* |now_s|: wall clock. *ret_claims is filled only for BF_JWT_OK. */
enum bf_jwt_verdict bf_token_keys_verify(const struct bf_token_keys *set, struct bf_bytes token,
                                         uint64_t now_s, struct bf_user_claims *ret_claims);

/* HS256 token over a JSON payload: `belfryctl token`. malloc'ed text (caller frees), or NULL. */
char *bf_token_sign_hs256(const char *kid, struct bf_bytes payload, struct bf_bytes secret);
