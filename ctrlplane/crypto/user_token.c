/*
 * Users' JWTs; see user_token.h. The algorithm is the key's: a token names one only to select among
 * keys of that very algorithm (RFC 8725 section 3.1), and "none" has no keys. The signature is
 * checked before any claim is read. Verify contexts are made per call, so that threads share keys
 * only.
 */
#include "crypto/user_token.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/conf/conf.h"
#include "belfry/jwt/public_key.h"
#include "crypto/hash.h"

struct token_key {
    char kid[65];
    enum bf_jwt_alg alg;
    EVP_PKEY *pkey; /* an HMAC key too: EVP_PKEY_HMAC keeps its lifetime with the others' */
};

struct bf_token_keys {
    uint32_t count;
    struct token_key keys[BF_CONF_JWT_KEYS_MAX];
    char audience[257];
};

/* ---- keys ---- */

static EVP_PKEY *read_key(const struct bf_conf_jwt_key *key)
{
    if (key->alg == BF_JWT_HS256)
        return EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, key->key, key->len);
    return bf_jwt_read_public_key((struct bf_bytes){(const char *)key->key, key->len}, key->alg);
}

int bf_token_keys_create(const struct bf_conf *conf, struct bf_token_keys **ret, char *err,
                         size_t err_len)
{
    struct bf_token_keys *set = calloc(1, sizeof(*set));
    if (!set) {
        snprintf(err, err_len, "out of memory");
        return -ENOMEM;
    }
    snprintf(set->audience, sizeof(set->audience), "%s", conf->jwt_audience);
    for (uint32_t i = 0; i < conf->jwt_key_count; i++) {
        struct token_key *key = &set->keys[set->count];
        key->alg = conf->jwt_keys[i].alg;
        memcpy(key->kid, conf->jwt_keys[i].kid, sizeof(key->kid));
        key->pkey = read_key(&conf->jwt_keys[i]);
        if (!key->pkey) {
            snprintf(err, err_len, "websocket.jwt_keys: kid '%s' is no public key fit for %s",
                     key->kid, bf_jwt_alg_name(key->alg).at);
            bf_token_keys_destroy(set);
            ERR_clear_error();
            return BF_ERR_MALFORMED;
        }
        set->count++;
    }
    *ret = set;
    return 0;
}

void bf_token_keys_destroy(struct bf_token_keys *set)
{
    if (!set)
        return;
    for (uint32_t i = 0; i < set->count; i++)
        EVP_PKEY_free(set->keys[i].pkey);
    free(set);
}

/* ---- signatures ---- */

static bool hmac_of(EVP_PKEY *pkey, struct bf_bytes text, uint8_t mac[BF_SHA256_BYTES])
{
    size_t len = BF_SHA256_BYTES;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, pkey) == 1 &&
              EVP_DigestSign(ctx, mac, &len, (const uint8_t *)text.at, text.len) == 1 &&
              len == BF_SHA256_BYTES;
    EVP_MD_CTX_free(ctx);
    return ok;
}

static bool verify_public(EVP_PKEY *pkey, const EVP_MD *md, struct bf_bytes text,
                          const uint8_t *sig, size_t len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestVerifyInit(ctx, NULL, md, NULL, pkey) == 1 &&
              EVP_DigestVerify(ctx, sig, len, (const uint8_t *)text.at, text.len) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

static bool check_signature(const struct token_key *key, struct bf_bytes text, const uint8_t *sig,
                            size_t len)
{
    uint8_t mac[BF_SHA256_BYTES];
    uint8_t der[BF_JWT_DER_BYTES_MAX];
    bool ok = false;
    switch (key->alg) {
    case BF_JWT_HS256:
        ok = len == sizeof(mac) && hmac_of(key->pkey, text, mac) &&
             CRYPTO_memcmp(mac, sig, sizeof(mac)) == 0;
        break;
    case BF_JWT_RS256:
        ok = verify_public(key->pkey, EVP_sha256(), text, sig, len);
        break;
    case BF_JWT_ES256:
        len = bf_jwt_es256_der(sig, len, der);
        ok = len > 0 && verify_public(key->pkey, EVP_sha256(), text, der, len);
        break;
    case BF_JWT_EDDSA:
        ok = len == BF_JWT_ED25519_SIG_BYTES && verify_public(key->pkey, NULL, text, sig, len);
        break;
    case BF_JWT_ALG_COUNT:
    default:
        break;
    }
    if (!ok)
        ERR_clear_error();
    return ok;
}

/* ---- verification ---- */

/* A decoded part and yyjson's room for it. */
struct part {
    char text[BF_JWT_PAYLOAD_BYTES_MAX + YYJSON_PADDING_SIZE];
    _Alignas(16) uint8_t pool[BF_JWT_POOL_BYTES];
    yyjson_val *member[BF_JWT_MEMBERS];
};

static bool read_part(struct bf_bytes encoded, size_t cap, struct part *part)
{
    long n = bf_base64url_decode(encoded, part->text, cap);
    return n > 0 &&
           bf_jwt_members(part->text, (size_t)n, part->pool, BF_JWT_M_TOPICS, part->member);
}

/* Keys of the token's alg and kid; then, if no key has that kid, those that answer any. */
static enum bf_jwt_verdict try_keys(const struct bf_token_keys *set, struct bf_bytes alg,
                                    struct bf_bytes kid, struct bf_bytes text, const uint8_t *sig,
                                    size_t sig_len)
{
    for (unsigned pass = kid.len > 0 ? 0 : 1; pass < 2; pass++) {
        struct bf_bytes wanted = pass == 0 ? kid : (struct bf_bytes){"", 0};
        bool is_known = false;
        for (uint32_t i = 0; i < set->count; i++) {
            const struct token_key *key = &set->keys[i];
            struct bf_bytes its = {key->kid, strlen(key->kid)};
            if (!bf_bytes_is_equal(its, wanted) ||
                !bf_bytes_is_equal(alg, bf_jwt_alg_name(key->alg)))
                continue;
            if (check_signature(key, text, sig, sig_len))
                return BF_JWT_OK;
            is_known = true;
        }
        if (is_known)
            return BF_JWT_BAD_SIGNATURE;
    }
    return BF_JWT_UNKNOWN_KEY;
}

static enum bf_jwt_verdict verify_signature(const struct bf_token_keys *set,
                                            const struct bf_jwt_parts *parts, struct part *part)
{
    uint8_t sig[BF_JWT_SIGNATURE_BYTES_MAX];
    struct bf_bytes alg, kid;
    if (!read_part(parts->header, BF_JWT_HEADER_BYTES_MAX, part) ||
        !bf_jwt_header(part->member, &alg, &kid))
        return BF_JWT_MALFORMED;
    long n = bf_base64url_decode(parts->signature, sig, sizeof(sig));
    if (n < 0)
        return BF_JWT_MALFORMED;
    return try_keys(set, alg, kid, parts->signed_text, sig, (size_t)n);
}

static enum bf_jwt_verdict check_claims(const struct bf_token_keys *set, const struct part *part,
                                        uint64_t now_s, struct bf_user_claims *ret)
{
    struct bf_jwt_claims claims;
    struct bf_bytes audience = {.at = set->audience, .len = strlen(set->audience)};
    enum bf_jwt_verdict verdict = bf_jwt_check_claims(part->member, audience, now_s, &claims);
    if (verdict != BF_JWT_OK)
        return verdict;
    *ret = (struct bf_user_claims){.user_len = claims.user.len, .expires_s = claims.expires_s};
    memcpy(ret->user, claims.user.at, claims.user.len);
    memcpy(ret->tenant, claims.tenant.at, claims.tenant.len);
    return BF_JWT_OK;
}

enum bf_jwt_verdict bf_token_keys_verify(const struct bf_token_keys *set, struct bf_bytes token,
                                         uint64_t now_s, struct bf_user_claims *ret_claims)
{
    struct bf_jwt_parts parts;
    struct part part;
    if (!bf_jwt_split(token, &parts))
        return BF_JWT_MALFORMED;
    enum bf_jwt_verdict verdict = verify_signature(set, &parts, &part);
    if (verdict == BF_JWT_OK && !read_part(parts.payload, BF_JWT_PAYLOAD_BYTES_MAX, &part))
        verdict = BF_JWT_MALFORMED;
    return verdict == BF_JWT_OK ? check_claims(set, &part, now_s, ret_claims) : verdict;
}

const char *bf_token_verdict_text(enum bf_jwt_verdict verdict)
{
    static const char *const texts[BF_JWT_VERDICT_COUNT] = {
        [BF_JWT_OK] = "ok",
        [BF_JWT_MALFORMED] = "not a JWT with a sub",
        [BF_JWT_UNKNOWN_KEY] = "no key of its kid and alg is configured",
        [BF_JWT_BAD_SIGNATURE] = "the signature does not verify",
        [BF_JWT_EXPIRED] = "expired, or without exp",
        [BF_JWT_NOT_YET] = "not valid yet (nbf)",
        [BF_JWT_AUDIENCE] = "made for another audience (aud)",
    };
    return (unsigned)verdict < BF_JWT_VERDICT_COUNT ? texts[verdict] : "unknown";
}

/* ---- signing ---- */

char *bf_token_sign_hs256(const char *kid, struct bf_bytes payload, struct bf_bytes secret)
{
    char header[128];
    uint8_t mac[BF_SHA256_BYTES];
    int header_len =
        snprintf(header, sizeof(header), "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"%s\"}", kid);
    if (header_len < 0 || header_len >= (int)sizeof(header))
        return NULL;
    EVP_PKEY *pkey =
        EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, (const uint8_t *)secret.at, secret.len);
    char *text = malloc(2 * sizeof(header) + payload.len * 2 + 2 * sizeof(mac));
    if (!text || !pkey) {
        free(text);
        EVP_PKEY_free(pkey);
        return NULL;
    }
    size_t n = bf_base64url_encode((const uint8_t *)header, (size_t)header_len, text);
    text[n++] = '.';
    n += bf_base64url_encode((const uint8_t *)payload.at, payload.len, text + n);
    bool ok = hmac_of(pkey, (struct bf_bytes){text, n}, mac);
    EVP_PKEY_free(pkey);
    if (!ok) {
        free(text);
        return NULL;
    }
    text[n++] = '.';
    n += bf_base64url_encode(mac, sizeof(mac), text + n);
    text[n] = '\0';
    return text;
}
