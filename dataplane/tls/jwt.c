/*
 * JWT verification: see jwt.h. The algorithm is the key's: a token names one only to select among
 * keys of that very algorithm, so no key is ever used with another (RFC 8725 section 3.1), and
 * "none" has no keys. The signature is checked before any claim is read.
 *
 * OpenSSL objects are made when the key set is: RSA and EC keys keep a verify context, HMAC its
 * keyed state, Ed25519 its digest context. Work memory (decoded parts, yyjson's values) is part of
 * the set, which is why a set serves one thread.
 */
#include "tls/jwt.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/jwt/public_key.h"

/* Keys of one node: a few issuers, two generations each while they rotate. */
#define KEYS_MAX 64u
/* A kid is a name or a thumbprint (43 characters). */
#define KID_BYTES_MAX 128u
#define SHA256_BYTES  32u

struct jwt_key {
    enum bf_jwt_alg alg;
    size_t kid_len;
    char kid[KID_BYTES_MAX];
    EVP_PKEY *pkey;
    EVP_PKEY_CTX *verify; /* RS256, ES256 */
    EVP_MAC_CTX *mac;     /* HS256 */
    EVP_MD_CTX *digest;   /* EdDSA */
};

/* Scratch of one verification. */
struct work {
    char header[BF_JWT_HEADER_BYTES_MAX + YYJSON_PADDING_SIZE];
    char payload[BF_JWT_PAYLOAD_BYTES_MAX + YYJSON_PADDING_SIZE];
    uint8_t signature[BF_JWT_SIGNATURE_BYTES_MAX];
    uint8_t json[BF_JWT_POOL_BYTES];
    struct bf_claims claims;
};

struct bf_jwt_keys {
    uint32_t count;
    struct jwt_key keys[KEYS_MAX];
    bool has_audience;
    char audience[256];
    size_t audience_len;
    EVP_MD *sha256;
    EVP_MAC *hmac;
    struct work *work;
};

/* ---- keys ---- */

static bool hmac_key_load(struct bf_jwt_keys *set, struct jwt_key *key, struct bf_bytes secret)
{
    char name[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
        OSSL_PARAM_construct_end(),
    };
    if (secret.len == 0)
        return false;
    key->mac = EVP_MAC_CTX_new(set->hmac);
    return key->mac && EVP_MAC_init(key->mac, (const uint8_t *)secret.at, secret.len, params) == 1;
}

static bool public_key_load(struct bf_jwt_keys *set, struct jwt_key *key, struct bf_bytes pem)
{
    key->pkey = bf_jwt_read_public_key(pem, key->alg);
    if (!key->pkey)
        return false;
    if (key->alg == BF_JWT_EDDSA) {
        key->digest = EVP_MD_CTX_new();
        return key->digest != NULL;
    }
    key->verify = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
    return key->verify && EVP_PKEY_verify_init(key->verify) == 1 &&
           EVP_PKEY_CTX_set_signature_md(key->verify, set->sha256) == 1;
}

static bool key_load(struct bf_jwt_keys *set, struct bf_reader *value)
{
    struct bf_bytes kid = bf_get_str16(value);
    uint8_t alg = bf_get_u8(value);
    struct bf_bytes bytes = bf_get_str16(value);
    if (value->failed || value->at != value->len || set->count == KEYS_MAX ||
        kid.len > KID_BYTES_MAX || alg >= BF_JWT_ALG_COUNT)
        return false;
    struct jwt_key *key = &set->keys[set->count++]; /* counted first: destroy sees it half built */
    key->alg = (enum bf_jwt_alg)alg;
    key->kid_len = kid.len;
    if (kid.len > 0)
        memcpy(key->kid, kid.at, kid.len);
    return alg == BF_JWT_HS256 ? hmac_key_load(set, key, bytes) : public_key_load(set, key, bytes);
}

static bool audience_load(struct bf_jwt_keys *set, struct bf_reader *value)
{
    if (set->has_audience || value->len > sizeof(set->audience))
        return false;
    set->has_audience = value->len > 0;
    set->audience_len = value->len;
    memcpy(set->audience, value->buf, value->len);
    return true;
}

/* Walks the snapshot's records; others' tags are passed over. */
static bool snapshot_load(struct bf_jwt_keys *set, const uint8_t *snapshot, size_t len)
{
    struct bf_reader r = {.buf = snapshot, .len = len};
    while (r.at < r.len && !r.failed) {
        uint16_t tag = bf_get_u16(&r);
        struct bf_bytes bytes = bf_get_str32(&r);
        struct bf_reader value = {.buf = (const uint8_t *)bytes.at, .len = bytes.len};
        if (r.failed)
            return false;
        if (tag == BF_SNAP_END)
            return true;
        if (tag == BF_SNAP_JWT_KEY && !key_load(set, &value))
            return false;
        if (tag == BF_SNAP_JWT_AUDIENCE && !audience_load(set, &value))
            return false;
    }
    return !r.failed;
}

int bf_jwt_keys_create(const uint8_t *snapshot, size_t len, struct bf_jwt_keys **ret)
{
    struct bf_jwt_keys *set = calloc(1, sizeof(*set));
    if (!set)
        return BF_ERR_NO_MEMORY;
    set->work = calloc(1, sizeof(*set->work));
    set->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    set->hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    if (set->work && set->sha256 && set->hmac && snapshot_load(set, snapshot, len)) {
        *ret = set;
        return 0;
    }
    int rc = set->work && set->sha256 && set->hmac ? BF_ERR_MALFORMED : BF_ERR_NO_MEMORY;
    bf_jwt_keys_destroy(set);
    ERR_clear_error(); /* a bad PEM leaves its story on the thread's error queue */
    return rc;
}

void bf_jwt_keys_destroy(struct bf_jwt_keys *keys)
{
    if (!keys)
        return;
    for (uint32_t i = 0; i < keys->count; i++) {
        EVP_PKEY_CTX_free(keys->keys[i].verify);
        EVP_MAC_CTX_free(keys->keys[i].mac);
        EVP_MD_CTX_free(keys->keys[i].digest);
        EVP_PKEY_free(keys->keys[i].pkey);
    }
    EVP_MD_free(keys->sha256);
    EVP_MAC_free(keys->hmac);
    free(keys->work);
    free(keys);
}

/* ---- signatures ---- */

static bool hmac_check(struct jwt_key *key, struct bf_bytes text, const uint8_t *sig,
                       size_t sig_len)
{
    uint8_t mac[SHA256_BYTES];
    size_t mac_len = 0;
    return sig_len == sizeof(mac) && EVP_MAC_init(key->mac, NULL, 0, NULL) == 1 &&
           EVP_MAC_update(key->mac, (const uint8_t *)text.at, text.len) == 1 &&
           EVP_MAC_final(key->mac, mac, &mac_len, sizeof(mac)) == 1 && mac_len == sizeof(mac) &&
           CRYPTO_memcmp(mac, sig, sizeof(mac)) == 0;
}

static bool ecdsa_check(const struct jwt_key *key, const uint8_t *hash, const uint8_t *sig,
                        size_t sig_len)
{
    uint8_t der[BF_JWT_DER_BYTES_MAX];
    size_t n = bf_jwt_es256_der(sig, sig_len, der);
    return n > 0 && EVP_PKEY_verify(key->verify, der, n, hash, SHA256_BYTES) == 1;
}

static bool ed25519_check(const struct jwt_key *key, struct bf_bytes text, const uint8_t *sig,
                          size_t sig_len)
{
    return sig_len == BF_JWT_ED25519_SIG_BYTES &&
           EVP_DigestVerifyInit(key->digest, NULL, NULL, NULL, key->pkey) == 1 &&
           EVP_DigestVerify(key->digest, sig, sig_len, (const uint8_t *)text.at, text.len) == 1;
}

static bool signature_check(const struct bf_jwt_keys *set, struct jwt_key *key,
                            struct bf_bytes text, const uint8_t *sig, size_t sig_len)
{
    uint8_t hash[SHA256_BYTES];
    bool good = false;
    switch (key->alg) {
    case BF_JWT_HS256:
        good = hmac_check(key, text, sig, sig_len);
        break;
    case BF_JWT_RS256:
        good = EVP_Digest(text.at, text.len, hash, NULL, set->sha256, NULL) == 1 &&
               EVP_PKEY_verify(key->verify, sig, sig_len, hash, sizeof(hash)) == 1;
        break;
    case BF_JWT_ES256:
        good = EVP_Digest(text.at, text.len, hash, NULL, set->sha256, NULL) == 1 &&
               ecdsa_check(key, hash, sig, sig_len);
        break;
    case BF_JWT_EDDSA:
        good = ed25519_check(key, text, sig, sig_len);
        break;
    case BF_JWT_ALG_COUNT:
    default:
        break;
    }
    if (!good)
        ERR_clear_error();
    return good;
}

/* ---- verification ---- */

/*
 * Tries the keys of the token's alg: first those of its kid, then those that answer any. Without a
 * kid only the latter. Their number is small and configured, so an attacker gains nothing by a
 * wrong kid.
 */
static enum bf_jwt_verdict keys_try(const struct bf_jwt_keys *set, struct bf_bytes alg,
                                    struct bf_bytes kid, struct bf_bytes text, size_t sig_len)
{
    enum bf_jwt_verdict verdict = BF_JWT_UNKNOWN_KEY;
    for (unsigned pass = kid.len > 0 ? 0 : 1; pass < 2; pass++) {
        struct bf_bytes wanted = pass == 0 ? kid : (struct bf_bytes){0};
        for (uint32_t i = 0; i < set->count; i++) {
            struct jwt_key *key =
                (struct jwt_key *)&set->keys[i]; /* its contexts are scratch too */
            struct bf_bytes its = {.at = key->kid, .len = key->kid_len};
            if (!bf_bytes_is_equal(its, wanted) ||
                !bf_bytes_is_equal(alg, bf_jwt_alg_name(key->alg)))
                continue;
            if (signature_check(set, key, text, set->work->signature, sig_len))
                return BF_JWT_OK;
            verdict = BF_JWT_BAD_SIGNATURE;
        }
        if (verdict == BF_JWT_BAD_SIGNATURE)
            return verdict; /* the kid is known: no other key answers for it */
    }
    return verdict;
}

static enum bf_jwt_verdict signature_verify(const struct bf_jwt_keys *set,
                                            const struct bf_jwt_parts *parts)
{
    struct work *work = set->work;
    yyjson_val *m[BF_JWT_MEMBERS];
    struct bf_bytes alg, kid;
    long n = bf_base64url_decode(parts->header, work->header, BF_JWT_HEADER_BYTES_MAX);
    if (n < 0 || !bf_jwt_members(work->header, (size_t)n, work->json, BF_JWT_MEMBERS, m) ||
        !bf_jwt_header(m, &alg, &kid))
        return BF_JWT_MALFORMED;
    n = bf_base64url_decode(parts->signature, work->signature, sizeof(work->signature));
    if (n < 0)
        return BF_JWT_MALFORMED;
    return keys_try(set, alg, kid, parts->signed_text, (size_t)n);
}

/* What a socket may subscribe to; the API has no use for it. */
static bool topics_read(yyjson_val *list, struct bf_claims *claims)
{
    size_t at, count;
    yyjson_val *val;
    if (!list)
        return true;
    if (!yyjson_is_arr(list) || yyjson_arr_size(list) > BF_JWT_TOPICS_MAX)
        return false;
    yyjson_arr_foreach (list, at, count, val) {
        struct bf_bytes topic;
        if (!bf_jwt_name(val, BF_TOPIC_BYTES_MAX, &topic) || topic.len == 0)
            return false;
        memcpy(claims->topics[at], topic.at, topic.len);
        claims->topic_len[at] = (uint8_t)topic.len;
        claims->topic_count++;
    }
    return true;
}

static enum bf_jwt_verdict claims_check(const struct bf_jwt_keys *set, size_t len, uint64_t now_s,
                                        struct bf_claims *claims)
{
    struct work *work = set->work;
    struct bf_bytes audience = {.at = set->audience, .len = set->audience_len};
    yyjson_val *m[BF_JWT_MEMBERS];
    struct bf_jwt_claims found;
    memset(claims, 0, offsetof(struct bf_claims, topics));
    if (!bf_jwt_members(work->payload, len, work->json, BF_JWT_MEMBERS, m) ||
        !topics_read(m[BF_JWT_M_TOPICS], claims))
        return BF_JWT_MALFORMED;
    enum bf_jwt_verdict verdict = bf_jwt_check_claims(m, audience, now_s, &found);
    if (verdict != BF_JWT_OK)
        return verdict;
    memcpy(claims->user, found.user.at, found.user.len);
    claims->user_len = found.user.len;
    memcpy(claims->tenant, found.tenant.at, found.tenant.len);
    claims->tenant_len = found.tenant.len;
    claims->expires_s = found.expires_s;
    return BF_JWT_OK;
}

enum bf_jwt_verdict bf_jwt_verify(const struct bf_jwt_keys *keys, struct bf_bytes token,
                                  uint64_t now_s, struct bf_claims *ret_claims)
{
    struct bf_jwt_parts parts;
    struct work *work = keys->work;
    if (!bf_jwt_split(token, &parts))
        return BF_JWT_MALFORMED;
    long n = bf_base64url_decode(parts.payload, work->payload, BF_JWT_PAYLOAD_BYTES_MAX);
    if (n < 0)
        return BF_JWT_MALFORMED;
    enum bf_jwt_verdict verdict = signature_verify(keys, &parts);
    if (verdict == BF_JWT_OK)
        verdict = claims_check(keys, (size_t)n, now_s, &work->claims);
    if (verdict == BF_JWT_OK)
        *ret_claims = work->claims;
    return verdict;
}

const char *bf_jwt_verdict_text(enum bf_jwt_verdict verdict)
{
    static const char *const texts[BF_JWT_VERDICT_COUNT] = {
        [BF_JWT_OK] = "ok",
        [BF_JWT_MALFORMED] = "malformed token",
        [BF_JWT_UNKNOWN_KEY] = "no key of this kid and alg",
        [BF_JWT_BAD_SIGNATURE] = "bad signature",
        [BF_JWT_EXPIRED] = "token expired",
        [BF_JWT_NOT_YET] = "token not valid yet",
        [BF_JWT_AUDIENCE] = "token is for another audience",
    };
    return verdict < BF_JWT_VERDICT_COUNT ? texts[verdict] : "unknown";
}
