/*
 * SHA-256 and users' JWTs; see crypto.h. The algorithm is the key's: a token names one only to select
 * among keys of that very algorithm (RFC 8725 section 3.1), and "none" has no keys. The signature is
 * checked before any claim is read. Verify contexts are made per call, so that threads share keys only.
 */
#include "api/crypto.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <yyjson.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/plain_text.h"
#include "belfry/conf/conf.h"

/* alg, typ, kid and what a library adds; a header with a certificate chain in it is not for us. */
#define HEADER_BYTES_MAX    2048u
#define PAYLOAD_BYTES_MAX   6144u
#define SIGNATURE_BYTES_MAX 1024u /* RSA-8192 */
#define RSA_BITS_MIN        2048  /* RFC 7518 section 3.3 */
#define ES256_HALF_BYTES    32u
#define ED25519_SIG_BYTES   64u
/* yyjson, in place: 12 bytes a byte of input plus a fixed part. */
#define POOL_BYTES (PAYLOAD_BYTES_MAX * 12u + 1024u)
/* NumericDate may have a fraction; above this (year 36812) it is a mistake. */
#define SECONDS_MAX 1e12

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

static const struct bf_bytes alg_names[BF_JWT_ALG_COUNT] = {
    [BF_JWT_HS256] = {"HS256", 5},
    [BF_JWT_RS256] = {"RS256", 5},
    [BF_JWT_ES256] = {"ES256", 5},
    [BF_JWT_EDDSA] = {"EdDSA", 5},
};

/* ---- small things ----------------------------------------------------------------------------- */

/* Looked up once: by name, for every request, it would cost more than the hash itself. */
static EVP_MD *sha256;

static void fetch_sha256(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    BF_BUG_ON(!sha256);
}

void bf_sha256(struct bf_bytes text, uint8_t out[BF_SHA256_BYTES])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fetch_sha256);
    int ok = EVP_Digest(text.at, text.len, out, NULL, sha256, NULL);
    BF_BUG_ON(ok != 1);
}

bool bf_is_same_secret(const uint8_t *a, const uint8_t *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}

void bf_random(void *out, size_t len)
{
    uint8_t *at = out;
    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);
        BF_BUG_ON(n < 0 && errno != EINTR);
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
}

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

/* RFC 7515 section 2: no padding; left-over bits are zero, so that one signature has one spelling. */
long bf_base64url_decode(struct bf_bytes in, uint8_t *out, size_t cap)
{
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
            out[n++] = (uint8_t)(bits >> have);
        }
    }
    return (bits & ((1u << have) - 1u)) != 0 ? -1 : (long)n;
}

size_t bf_base64url_encode(const uint8_t *in, size_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | in[i];
        for (have += 8; have >= 6; have -= 6)
            out[n++] = digits[bits >> (have - 6) & 63];
    }
    if (have > 0)
        out[n++] = digits[bits << (6 - have) & 63];
    return n;
}

/* ---- keys --------------------------------------------------------------------------------------- */

static bool is_fit(const EVP_PKEY *pkey, enum bf_jwt_alg alg)
{
    char group[32] = "";
    switch (alg) {
    case BF_JWT_RS256:
        return EVP_PKEY_is_a(pkey, "RSA") && EVP_PKEY_get_bits(pkey) >= RSA_BITS_MIN &&
               EVP_PKEY_get_size(pkey) <= (int)SIGNATURE_BYTES_MAX;
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

static EVP_PKEY *read_key(const struct bf_conf_jwt_key *key)
{
    if (key->alg == BF_JWT_HS256)
        return EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, key->key, key->len);
    BIO *bio = BIO_new_mem_buf(key->key, (int)key->len);
    EVP_PKEY *pkey = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    if (pkey && !is_fit(pkey, key->alg)) {
        EVP_PKEY_free(pkey);
        pkey = NULL;
    }
    return pkey;
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
                     key->kid, alg_names[key->alg].at);
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

/* ---- signatures --------------------------------------------------------------------------------- */

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

/* JOSE's r||s to the DER that OpenSSL takes; 0 if it has another length. */
static size_t ecdsa_der(const uint8_t *sig, size_t len, uint8_t *der)
{
    if (len != 2 * ES256_HALF_BYTES)
        return 0;
    size_t n = 2;
    n += der_integer(sig, der + n);
    n += der_integer(sig + ES256_HALF_BYTES, der + n);
    der[0] = 0x30;
    der[1] = (uint8_t)(n - 2);
    return n;
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
    uint8_t der[2 + 2 * (3 + ES256_HALF_BYTES)];
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
        len = ecdsa_der(sig, len, der);
        ok = len > 0 && verify_public(key->pkey, EVP_sha256(), text, der, len);
        break;
    case BF_JWT_EDDSA:
        ok = len == ED25519_SIG_BYTES && verify_public(key->pkey, NULL, text, sig, len);
        break;
    case BF_JWT_ALG_COUNT:
    default:
        break;
    }
    if (!ok)
        ERR_clear_error();
    return ok;
}

/* ---- JSON --------------------------------------------------------------------------------------- */

/* Members that we read, each at most once: with two of a name, issuer and verifier might differ. */
enum member { M_ALG = 0, M_KID, M_CRIT, M_SUB, M_EXP, M_NBF, M_AUD, M_TENANT, M_COUNT };

static const char *const member_names[M_COUNT] = {"alg", "kid", "crit", "sub",
                                                  "exp", "nbf", "aud",  "tenant"};

/* A decoded part and yyjson's room for it. */
struct part {
    char text[PAYLOAD_BYTES_MAX + 4]; /* yyjson reads up to 4 zeros behind it */
    _Alignas(16) uint8_t pool[POOL_BYTES];
    yyjson_val *member[M_COUNT];
};

static struct bf_bytes text_of(yyjson_val *val)
{
    return (struct bf_bytes){.at = yyjson_get_str(val), .len = yyjson_get_len(val)};
}

static bool read_part(struct bf_bytes encoded, size_t cap, struct part *part)
{
    yyjson_alc alc;
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    memset(part->member, 0, sizeof(part->member));
    long n = bf_base64url_decode(encoded, (uint8_t *)part->text, cap);
    if (n <= 0 || !yyjson_alc_pool_init(&alc, part->pool, sizeof(part->pool)))
        return false;
    memset(part->text + n, 0, 4);
    yyjson_doc *doc = yyjson_read_opts(part->text, (size_t)n, YYJSON_READ_INSITU, &alc, NULL);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;
    if (!yyjson_is_obj(root))
        return false;
    yyjson_obj_foreach(root, i, max, key, val)
    {
        for (unsigned m = 0; m < M_COUNT; m++) {
            if (!yyjson_equals_str(key, member_names[m]))
                continue;
            if (part->member[m])
                return false;
            part->member[m] = val;
        }
    }
    return true;
}

static bool read_seconds(yyjson_val *val, uint64_t *ret)
{
    double v = yyjson_is_num(val) ? yyjson_get_num(val) : -1.0;
    if (!(v >= 0.0 && v <= SECONDS_MAX))
        return false;
    *ret = (uint64_t)v;
    return true;
}

/* A string of 1..|max| bytes without control characters, as the dataplane has it. */
static bool copy_text(yyjson_val *val, char *out, size_t max, size_t *ret_len)
{
    struct bf_bytes text = text_of(val);
    if (!yyjson_is_str(val) || text.len == 0 || text.len > max)
        return false;
    if (bf_text_has_control(text.at, text.len))
        return false;
    memcpy(out, text.at, text.len);
    out[text.len] = '\0';
    *ret_len = text.len;
    return true;
}

static bool is_our_audience(const struct bf_token_keys *set, yyjson_val *aud)
{
    size_t i;
    size_t max;
    yyjson_val *val;
    if (yyjson_equals_str(aud, set->audience))
        return true;
    yyjson_arr_foreach(aud, i, max, val)
    {
        if (yyjson_equals_str(val, set->audience))
            return true;
    }
    return false;
}

/* ---- verification ------------------------------------------------------------------------------- */

struct token_parts {
    struct bf_bytes header, payload, signature;
    struct bf_bytes signed_text; /* header and payload with the dot */
};

static bool split(struct bf_bytes token, struct token_parts *ret)
{
    if (token.len == 0 || token.len > BF_TOKEN_BYTES_MAX)
        return false;
    const char *end = token.at + token.len;
    const char *first = memchr(token.at, '.', token.len);
    const char *second = first ? memchr(first + 1, '.', (size_t)(end - first - 1)) : NULL;
    if (!second || memchr(second + 1, '.', (size_t)(end - second - 1)))
        return false;
    ret->header = (struct bf_bytes){token.at, (size_t)(first - token.at)};
    ret->payload = (struct bf_bytes){first + 1, (size_t)(second - first - 1)};
    ret->signature = (struct bf_bytes){second + 1, (size_t)(end - second - 1)};
    ret->signed_text = (struct bf_bytes){token.at, (size_t)(second - token.at)};
    return true;
}

/* Keys of the token's alg and kid; then, if no key has that kid, those that answer any. */
static enum bf_token_verdict try_keys(const struct bf_token_keys *set, struct bf_bytes alg,
                                      struct bf_bytes kid, struct bf_bytes text, const uint8_t *sig,
                                      size_t sig_len)
{
    for (unsigned pass = kid.len > 0 ? 0 : 1; pass < 2; pass++) {
        struct bf_bytes wanted = pass == 0 ? kid : (struct bf_bytes){"", 0};
        bool is_known = false;
        for (uint32_t i = 0; i < set->count; i++) {
            const struct token_key *key = &set->keys[i];
            struct bf_bytes its = {key->kid, strlen(key->kid)};
            if (!bf_bytes_is_equal(its, wanted) || !bf_bytes_is_equal(alg, alg_names[key->alg]))
                continue;
            if (check_signature(key, text, sig, sig_len))
                return BF_TOKEN_OK;
            is_known = true;
        }
        if (is_known)
            return BF_TOKEN_BAD_SIGNATURE;
    }
    return BF_TOKEN_UNKNOWN_KEY;
}

static enum bf_token_verdict verify_signature(const struct bf_token_keys *set,
                                              const struct token_parts *parts, struct part *part)
{
    uint8_t sig[SIGNATURE_BYTES_MAX];
    if (!read_part(parts->header, HEADER_BYTES_MAX, part))
        return BF_TOKEN_MALFORMED;
    yyjson_val *const *m = part->member;
    /* crit names extensions that must be understood (RFC 7515 4.1.11); we understand none */
    if (!yyjson_is_str(m[M_ALG]) || m[M_CRIT] || (m[M_KID] && !yyjson_is_str(m[M_KID])))
        return BF_TOKEN_MALFORMED;
    struct bf_bytes kid = m[M_KID] ? text_of(m[M_KID]) : (struct bf_bytes){"", 0};
    long n = bf_base64url_decode(parts->signature, sig, sizeof(sig));
    if (n < 0)
        return BF_TOKEN_MALFORMED;
    return try_keys(set, text_of(m[M_ALG]), kid, parts->signed_text, sig, (size_t)n);
}

static enum bf_token_verdict check_claims(const struct bf_token_keys *set, const struct part *part,
                                          uint64_t now_s, struct bf_user_claims *claims)
{
    yyjson_val *const *m = part->member;
    uint64_t not_before = 0;
    size_t tenant_len;
    *claims = (struct bf_user_claims){0};
    if (!copy_text(m[M_SUB], claims->user, BF_USER_ID_BYTES_MAX, &claims->user_len))
        return BF_TOKEN_MALFORMED;
    bool has_tenant = m[M_TENANT] && !yyjson_equals_str(m[M_TENANT], "");
    if (has_tenant && !copy_text(m[M_TENANT], claims->tenant, BF_TENANT_BYTES_MAX, &tenant_len))
        return BF_TOKEN_MALFORMED;
    if ((m[M_EXP] && !read_seconds(m[M_EXP], &claims->expires_s)) ||
        (m[M_NBF] && !read_seconds(m[M_NBF], &not_before)))
        return BF_TOKEN_MALFORMED;
    if (!m[M_EXP] || now_s >= claims->expires_s + BF_JWT_LEEWAY_S)
        return BF_TOKEN_EXPIRED;
    if (not_before > now_s + BF_JWT_LEEWAY_S)
        return BF_TOKEN_NOT_YET;
    if (set->audience[0] && !is_our_audience(set, m[M_AUD]))
        return BF_TOKEN_AUDIENCE;
    return BF_TOKEN_OK;
}

enum bf_token_verdict bf_token_keys_verify(const struct bf_token_keys *set, struct bf_bytes token,
                                           uint64_t now_s, struct bf_user_claims *ret_claims)
{
    struct token_parts parts;
    struct bf_user_claims claims;
    struct part part;
    if (!split(token, &parts))
        return BF_TOKEN_MALFORMED;
    enum bf_token_verdict verdict = verify_signature(set, &parts, &part);
    if (verdict == BF_TOKEN_OK && !read_part(parts.payload, PAYLOAD_BYTES_MAX, &part))
        verdict = BF_TOKEN_MALFORMED;
    if (verdict == BF_TOKEN_OK)
        verdict = check_claims(set, &part, now_s, &claims);
    if (verdict == BF_TOKEN_OK)
        *ret_claims = claims;
    return verdict;
}

const char *bf_token_verdict_text(enum bf_token_verdict verdict)
{
    static const char *const texts[BF_TOKEN_VERDICT_COUNT] = {
        [BF_TOKEN_OK] = "ok",
        [BF_TOKEN_MALFORMED] = "not a JWT with a sub",
        [BF_TOKEN_UNKNOWN_KEY] = "no key of its kid and alg is configured",
        [BF_TOKEN_BAD_SIGNATURE] = "the signature does not verify",
        [BF_TOKEN_EXPIRED] = "expired, or without exp",
        [BF_TOKEN_NOT_YET] = "not valid yet (nbf)",
        [BF_TOKEN_AUDIENCE] = "made for another audience (aud)",
    };
    return (unsigned)verdict < BF_TOKEN_VERDICT_COUNT ? texts[verdict] : "unknown";
}

/* ---- signing ------------------------------------------------------------------------------------ */

char *bf_token_sign_hs256(const char *kid, struct bf_bytes payload, struct bf_bytes secret)
{
    char header[128];
    uint8_t mac[BF_SHA256_BYTES];
    int header_len =
        snprintf(header, sizeof(header), "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"%s\"}", kid);
    if (header_len < 0 || header_len >= (int)sizeof(header))
        return NULL;
    EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, (const uint8_t *)secret.at,
                                                  secret.len);
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

/* ---- certificates ----------------------------------------------------------------------------- */

static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf, (void)size, (void)writing, (void)arg;
    return -1; /* an error, never a question at a terminal */
}

/* All certificates of a PEM text; the first is given to the caller. NULL: one is damaged, or none. */
static X509 *chain_read(const uint8_t *pem, uint32_t len)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    X509 *first = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
    X509 *next = first;
    while (next) {
        next = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
        X509_free(next);
    }
    unsigned long code = ERR_peek_last_error();
    if (first && ERR_GET_REASON(code) != PEM_R_NO_START_LINE) {
        X509_free(first);
        first = NULL;
    }
    ERR_clear_error();
    BIO_free(bio);
    return first;
}

static EVP_PKEY *private_key_read(const struct bf_conf_cert *cert)
{
    BIO *bio = BIO_new_mem_buf(cert->key, (int)cert->key_len);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    ERR_clear_error();
    BIO_free(bio);
    return key;
}

static const char *certificate_fault(const struct bf_conf_cert *conf)
{
    X509 *cert = chain_read(conf->chain, conf->chain_len);
    EVP_PKEY *key = private_key_read(conf);
    const char *fault = NULL;
    if (!cert)
        fault = "cert is not a certificate with its chain, in PEM form";
    else if (!key)
        fault = "key is not a private key in PEM form without a passphrase";
    else if (X509_check_private_key(cert, key) != 1)
        fault = "the key does not belong to the certificate";
    else if (X509_cmp_current_time(X509_get0_notAfter(cert)) < 0)
        fault = "the certificate has expired";
    ERR_clear_error();
    X509_free(cert);
    EVP_PKEY_free(key);
    return fault;
}

static int api_certificate_check(const struct bf_conf *conf, char *err, size_t err_len)
{
    const char *fault = conf->api_cert.chain_len ? certificate_fault(&conf->api_cert) : NULL;
    X509 *ca = conf->api_client_ca_len ? chain_read(conf->api_client_ca, conf->api_client_ca_len) : NULL;
    if (fault)
        snprintf(err, err_len, "api.tls.cert and api.tls.key: %s", fault);
    else if (conf->api_client_ca_len > 0 && !ca)
        snprintf(err, err_len, "api.tls.client_ca: not CA certificates in PEM form");
    bool is_good = !fault && (conf->api_client_ca_len == 0 || ca);
    X509_free(ca);
    return is_good ? 0 : BF_ERR_MALFORMED;
}

int bf_certificates_check(const struct bf_conf *conf, char *err, size_t err_len)
{
    for (uint32_t i = 0; i < conf->cert_count; i++) {
        const char *fault = certificate_fault(&conf->certs[i]);
        if (fault) {
            snprintf(err, err_len, "tls.certificates: entry %u: %s", i + 1, fault);
            return BF_ERR_MALFORMED;
        }
    }
    X509 *ca = conf->client_ca_len ? chain_read(conf->client_ca, conf->client_ca_len) : NULL;
    if (conf->client_ca_len > 0 && !ca) {
        snprintf(err, err_len, "tls.client_ca: not CA certificates in PEM form");
        return BF_ERR_MALFORMED;
    }
    X509_free(ca);
    return api_certificate_check(conf, err, err_len);
}
