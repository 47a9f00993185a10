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
#include <openssl/pem.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "belfry/base/err.h"
#include "belfry/base/plain_text.h"

/* Keys of one node: a few issuers, two generations each while they rotate. */
#define KEYS_MAX 64u
/* A kid is a name or a thumbprint (43 characters). */
#define KID_BYTES_MAX 128u
/* alg, typ, kid and what a library adds; a header with a certificate chain in it is not for us. */
#define HEADER_BYTES_MAX 2048u
/* RSA-8192 signs with 1,024 bytes. */
#define SIGNATURE_BYTES_MAX 1024u
/* RFC 7518 section 3.3. */
#define RSA_BITS_MIN      2048
#define ES256_HALF_BYTES  32u
#define ED25519_SIG_BYTES 64u
#define SHA256_BYTES      32u
/* yyjson: 12 bytes a byte of input plus a fixed part (yyjson_read_max_memory_usage, in situ). */
#define JSON_POOL_BYTES (BF_JWT_PAYLOAD_BYTES_MAX * 12u + 1024u)
/* NumericDate may have a fraction; above this (year 36812) it is a mistake. */
#define SECONDS_MAX 1e12

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
    char header[HEADER_BYTES_MAX + YYJSON_PADDING_SIZE];
    char payload[BF_JWT_PAYLOAD_BYTES_MAX + YYJSON_PADDING_SIZE];
    uint8_t signature[SIGNATURE_BYTES_MAX];
    uint8_t json[JSON_POOL_BYTES];
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

static const struct bf_bytes alg_names[BF_JWT_ALG_COUNT] = {
    [BF_JWT_HS256] = {"HS256", 5},
    [BF_JWT_RS256] = {"RS256", 5},
    [BF_JWT_ES256] = {"ES256", 5},
    [BF_JWT_EDDSA] = {"EdDSA", 5},
};

/* ---- keys ----------------------------------------------------------------------------------- */

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

/* Whether a public key is of the kind its alg needs. */
static bool pkey_is_fit(const EVP_PKEY *pkey, enum bf_jwt_alg alg)
{
    char group[32] = "";
    switch (alg) {
    case BF_JWT_RS256:
        return EVP_PKEY_is_a(pkey, "RSA") && EVP_PKEY_get_bits(pkey) >= RSA_BITS_MIN &&
               (size_t)EVP_PKEY_get_size(pkey) <= SIGNATURE_BYTES_MAX;
    case BF_JWT_ES256:
        return EVP_PKEY_is_a(pkey, "EC") &&
               EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) == 1 &&
               strcmp(group, "prime256v1") == 0;
    case BF_JWT_EDDSA:
        return EVP_PKEY_is_a(pkey, "ED25519");
    case BF_JWT_HS256:
    case BF_JWT_ALG_COUNT:
    default:
        return false;
    }
}

static bool public_key_load(struct bf_jwt_keys *set, struct jwt_key *key, struct bf_bytes pem)
{
    BIO *bio = BIO_new_mem_buf(pem.at, (int)pem.len);
    if (!bio)
        return false;
    key->pkey = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
    BIO_free(bio);
    if (!key->pkey || !pkey_is_fit(key->pkey, key->alg))
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

/* ---- base64url ------------------------------------------------------------------------------ */

static int digit_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/*
 * RFC 7515 section 2: no padding. Left-over bits must be zero, so that one signature has one
 * spelling. Returns the bytes written, or -1.
 */
static ssize_t base64url_read(struct bf_bytes in, void *out, size_t cap)
{
    uint8_t *at = out;
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;
    if (in.len % 4 == 1 || in.len / 4 * 3 + in.len % 4 * 3 / 4 > cap)
        return -1;
    for (size_t i = 0; i < in.len; i++) {
        int digit = digit_of(in.at[i]);
        if (digit < 0)
            return -1;
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            at[n++] = (uint8_t)(bits >> have);
        }
    }
    return bits & ((1u << have) - 1u) ? -1 : (ssize_t)n;
}

/* ---- signatures ----------------------------------------------------------------------------- */

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

/* One DER INTEGER of a big-endian number of 32 bytes. Returns its bytes, at most 35. */
static size_t der_integer(const uint8_t half[ES256_HALF_BYTES], uint8_t *out)
{
    size_t skip = 0;
    while (skip < ES256_HALF_BYTES - 1 && half[skip] == 0)
        skip++;
    size_t n = ES256_HALF_BYTES - skip;
    size_t pad = half[skip] >> 7; /* a leading zero keeps it positive */
    out[0] = 0x02;
    out[1] = (uint8_t)(n + pad);
    out[2] = 0;
    memcpy(out + 2 + pad, half + skip, n);
    return 2 + pad + n;
}

static bool ecdsa_check(const struct jwt_key *key, const uint8_t *hash, const uint8_t *sig,
                        size_t sig_len)
{
    uint8_t der[2 + 2 * (3 + ES256_HALF_BYTES)];
    if (sig_len != 2 * ES256_HALF_BYTES)
        return false;
    size_t n = 2;
    n += der_integer(sig, der + n);
    n += der_integer(sig + ES256_HALF_BYTES, der + n);
    der[0] = 0x30;
    der[1] = (uint8_t)(n - 2);
    return EVP_PKEY_verify(key->verify, der, n, hash, SHA256_BYTES) == 1;
}

static bool ed25519_check(const struct jwt_key *key, struct bf_bytes text, const uint8_t *sig,
                          size_t sig_len)
{
    return sig_len == ED25519_SIG_BYTES &&
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

/* ---- JSON ----------------------------------------------------------------------------------- */

/* Members that we read, each at most once: with two of a name, issuer and verifier might differ. */
enum member { M_ALG = 0, M_KID, M_CRIT, M_SUB, M_EXP, M_NBF, M_AUD, M_TENANT, M_TOPICS, M_COUNT };

static const struct bf_bytes member_names[M_COUNT] = {
    [M_ALG] = {"alg", 3}, [M_KID] = {"kid", 3},       [M_CRIT] = {"crit", 4},
    [M_SUB] = {"sub", 3}, [M_EXP] = {"exp", 3},       [M_NBF] = {"nbf", 3},
    [M_AUD] = {"aud", 3}, [M_TENANT] = {"tenant", 6}, [M_TOPICS] = {"topics", 6},
};

static struct bf_bytes text_of(yyjson_val *val)
{
    return (struct bf_bytes){.at = yyjson_get_str(val), .len = yyjson_get_len(val)};
}

/* Reads an object's members in situ; |json| has padding. Returns false if it is not such an object.
 */
static bool members_read(struct work *work, char *json, size_t len, yyjson_val *found[M_COUNT])
{
    yyjson_alc alc;
    size_t at, count;
    yyjson_val *key, *val;
    memset(json + len, 0, YYJSON_PADDING_SIZE);
    if (len == 0 || !yyjson_alc_pool_init(&alc, work->json, sizeof(work->json)))
        return false;
    yyjson_doc *doc = yyjson_read_opts(json, len, YYJSON_READ_INSITU, &alc, NULL);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;
    if (!yyjson_is_obj(root))
        return false;
    yyjson_obj_foreach (root, at, count, key, val) {
        for (unsigned i = 0; i < M_COUNT; i++) {
            if (!bf_bytes_is_equal(text_of(key), member_names[i]))
                continue;
            if (found[i])
                return false;
            found[i] = val;
        }
    }
    return true;
}

/* NumericDate. Returns false unless it is a number of seconds from 0 on. */
static bool seconds_read(yyjson_val *val, uint64_t *ret)
{
    double v = yyjson_is_num(val) ? yyjson_get_num(val) : -1.0;
    if (!(v >= 0.0 && v <= SECONDS_MAX))
        return false;
    *ret = (uint64_t)v;
    return true;
}

/* A string of at most |cap| bytes without control characters (a user id may be any other text). */
static bool text_copy(yyjson_val *val, char *out, size_t cap, size_t *ret_len)
{
    struct bf_bytes text = text_of(val);
    if (!yyjson_is_str(val) || text.len > cap)
        return false;
    if (bf_text_has_control(text.at, text.len))
        return false;
    memcpy(out, text.at, text.len);
    *ret_len = text.len;
    return true;
}

static bool audience_is_ours(const struct bf_jwt_keys *set, yyjson_val *aud)
{
    struct bf_bytes wanted = {.at = set->audience, .len = set->audience_len};
    size_t at, count;
    yyjson_val *val;
    if (yyjson_is_str(aud))
        return bf_bytes_is_equal(text_of(aud), wanted);
    yyjson_arr_foreach (aud, at, count, val) {
        if (yyjson_is_str(val) && bf_bytes_is_equal(text_of(val), wanted))
            return true;
    }
    return false;
}

static bool topics_read(yyjson_val *list, struct bf_claims *claims)
{
    size_t at, count;
    yyjson_val *val;
    if (!list)
        return true;
    if (!yyjson_is_arr(list) || yyjson_arr_size(list) > BF_JWT_TOPICS_MAX)
        return false;
    yyjson_arr_foreach (list, at, count, val) {
        size_t len;
        if (!text_copy(val, claims->topics[at], BF_TOPIC_BYTES_MAX, &len) || len == 0)
            return false;
        claims->topic_len[at] = (uint8_t)len;
        claims->topic_count++;
    }
    return true;
}

/* ---- verification --------------------------------------------------------------------------- */

struct token_parts {
    struct bf_bytes header, payload, signature;
    struct bf_bytes text; /* what is signed: header and payload with the dot */
};

static bool token_split(struct bf_bytes token, struct token_parts *ret)
{
    if (token.len == 0 || token.len > BF_JWT_BYTES_MAX)
        return false;
    const char *end = token.at + token.len;
    const char *first = memchr(token.at, '.', token.len);
    const char *second = first ? memchr(first + 1, '.', (size_t)(end - first - 1)) : NULL;
    if (!second || memchr(second + 1, '.', (size_t)(end - second - 1)))
        return false;
    ret->header = (struct bf_bytes){.at = token.at, .len = (size_t)(first - token.at)};
    ret->payload = (struct bf_bytes){.at = first + 1, .len = (size_t)(second - first - 1)};
    ret->signature = (struct bf_bytes){.at = second + 1, .len = (size_t)(end - second - 1)};
    ret->text = (struct bf_bytes){.at = token.at, .len = (size_t)(second - token.at)};
    return true;
}

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
            if (!bf_bytes_is_equal(its, wanted) || !bf_bytes_is_equal(alg, alg_names[key->alg]))
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
                                            const struct token_parts *parts)
{
    struct work *work = set->work;
    yyjson_val *m[M_COUNT] = {0};
    struct bf_bytes kid = {0};
    ssize_t n = base64url_read(parts->header, work->header, HEADER_BYTES_MAX);
    if (n < 0 || !members_read(work, work->header, (size_t)n, m))
        return BF_JWT_MALFORMED;
    /* crit names extensions that must be understood (RFC 7515 4.1.11); we understand none */
    if (!yyjson_is_str(m[M_ALG]) || m[M_CRIT] || (m[M_KID] && !yyjson_is_str(m[M_KID])))
        return BF_JWT_MALFORMED;
    if (m[M_KID])
        kid = text_of(m[M_KID]);
    n = base64url_read(parts->signature, work->signature, sizeof(work->signature));
    if (n < 0)
        return BF_JWT_MALFORMED;
    return keys_try(set, text_of(m[M_ALG]), kid, parts->text, (size_t)n);
}

static enum bf_jwt_verdict claims_check(const struct bf_jwt_keys *set, size_t len, uint64_t now_s,
                                        struct bf_claims *claims)
{
    struct work *work = set->work;
    yyjson_val *m[M_COUNT] = {0};
    uint64_t not_before = 0;
    memset(claims, 0, offsetof(struct bf_claims, topics));
    claims->topic_count = 0;
    if (!members_read(work, work->payload, len, m))
        return BF_JWT_MALFORMED;
    if (!text_copy(m[M_SUB], claims->user, sizeof(claims->user), &claims->user_len) ||
        claims->user_len == 0)
        return BF_JWT_MALFORMED;
    if (m[M_TENANT] &&
        !text_copy(m[M_TENANT], claims->tenant, sizeof(claims->tenant), &claims->tenant_len))
        return BF_JWT_MALFORMED;
    if (!topics_read(m[M_TOPICS], claims))
        return BF_JWT_MALFORMED;
    if ((m[M_EXP] && !seconds_read(m[M_EXP], &claims->expires_s)) ||
        (m[M_NBF] && !seconds_read(m[M_NBF], &not_before)))
        return BF_JWT_MALFORMED;
    if (!m[M_EXP] || now_s >= claims->expires_s + BF_JWT_LEEWAY_S)
        return BF_JWT_EXPIRED;
    if (now_s + BF_JWT_LEEWAY_S < not_before)
        return BF_JWT_NOT_YET;
    if (set->has_audience && !audience_is_ours(set, m[M_AUD]))
        return BF_JWT_AUDIENCE;
    return BF_JWT_OK;
}

enum bf_jwt_verdict bf_jwt_verify(const struct bf_jwt_keys *keys, struct bf_bytes token,
                                  uint64_t now_s, struct bf_claims *ret_claims)
{
    struct token_parts parts;
    struct work *work = keys->work;
    if (!token_split(token, &parts))
        return BF_JWT_MALFORMED;
    ssize_t n = base64url_read(parts.payload, work->payload, BF_JWT_PAYLOAD_BYTES_MAX);
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
