/* Signed tokens: see sim_jwt.h. */
#include "sim_jwt.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <yyjson.h>

#include "sim_text.h"

#define ACCESS_PREFIX    "ya29.sim."
#define ACCESS_RAW_BYTES 32 /* expiry 8, nonce 8, MAC 16 */

struct jwt {
    struct sim_slice signed_part; /* header.payload */
    uint8_t signature[512];       /* RSA-4096 at most */
    int signature_bytes;
    char alg[16], kid[64];
};

static void copy_claim(yyjson_val *root, const char *name, char *out, bool *ok)
{
    yyjson_val *v = yyjson_obj_get(root, name);
    out[0] = '\0';
    if (v && (!yyjson_is_str(v) ||
              !sim_text_copy(out, SIM_CLAIM_BYTES_MAX,
                             (struct sim_slice){yyjson_get_str(v), (uint32_t)yyjson_get_len(v)})))
        *ok = false;
}

static yyjson_doc *json_part(struct sim_slice part)
{
    uint8_t raw[SIM_JWT_BYTES_MAX];
    int n = sim_text_base64(part, false, raw, sizeof(raw));
    return n <= 0 ? NULL : yyjson_read((const char *)raw, (size_t)n, 0);
}

static bool read_header(struct sim_slice part, struct jwt *j)
{
    yyjson_doc *doc = json_part(part);
    yyjson_val *root = yyjson_doc_get_root(doc);
    const char *alg = yyjson_get_str(yyjson_obj_get(root, "alg"));
    const char *kid = yyjson_get_str(yyjson_obj_get(root, "kid"));
    snprintf(j->alg, sizeof(j->alg), "%s", alg ? alg : "");
    snprintf(j->kid, sizeof(j->kid), "%s", kid ? kid : "");
    yyjson_doc_free(doc);
    return alg != NULL;
}

static bool read_claims(struct sim_slice part, struct sim_claims *ret)
{
    yyjson_doc *doc = json_part(part);
    yyjson_val *root = yyjson_doc_get_root(doc);
    bool ok = yyjson_is_obj(root);
    copy_claim(root, "iss", ret->iss, &ok);
    copy_claim(root, "aud", ret->aud, &ok);
    copy_claim(root, "sub", ret->sub, &ok);
    copy_claim(root, "scope", ret->scope, &ok);
    ret->iat = (int64_t)yyjson_get_num(yyjson_obj_get(root, "iat"));
    ret->exp = (int64_t)yyjson_get_num(yyjson_obj_get(root, "exp"));
    yyjson_doc_free(doc);
    return ok;
}

/* Splits and decodes; the signature is not looked at yet. */
static bool read_jwt(struct sim_slice text, struct jwt *j, struct sim_claims *ret)
{
    const char *end = text.p + text.n;
    const char *dot1 = memchr(text.p, '.', text.n);
    const char *dot2 = dot1 ? memchr(dot1 + 1, '.', (size_t)(end - dot1 - 1)) : NULL;
    if (!dot2 || text.n > SIM_JWT_BYTES_MAX)
        return false;
    struct sim_slice head = {text.p, (uint32_t)(dot1 - text.p)};
    struct sim_slice body = {dot1 + 1, (uint32_t)(dot2 - dot1 - 1)};
    struct sim_slice tail = {dot2 + 1, (uint32_t)(end - dot2 - 1)};
    j->signed_part = (struct sim_slice){text.p, (uint32_t)(dot2 - text.p)};
    j->signature_bytes = sim_text_base64(tail, false, j->signature, sizeof(j->signature));
    return j->signature_bytes > 0 && read_header(head, j) && read_claims(body, ret);
}

static bool verify(EVP_PKEY *key, const uint8_t *signature, size_t bytes, struct sim_slice text)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
              EVP_DigestVerify(ctx, signature, bytes, (const uint8_t *)text.p, text.n) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* JWS has R || S, OpenSSL wants DER. */
static bool verify_es256(EVP_PKEY *key, const struct jwt *j)
{
    uint8_t der[80], *at = der;
    if (strcmp(j->alg, "ES256") != 0 || j->signature_bytes != 64)
        return false;
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(j->signature, 32, NULL), *s = BN_bin2bn(j->signature + 32, 32, NULL);
    if (!sig || !r || !s || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        ECDSA_SIG_free(sig);
        return false;
    }
    int n = i2d_ECDSA_SIG(sig, &at);
    ECDSA_SIG_free(sig);
    return n > 0 && verify(key, der, (size_t)n, j->signed_part);
}

/* Takes "<scheme> " off; false when the field begins otherwise. */
static bool take_scheme(struct sim_slice *field, const char *scheme)
{
    uint32_t n = (uint32_t)strlen(scheme);
    if (field->n <= n || field->p[n] != ' ' ||
        !sim_text_is_nocase((struct sim_slice){field->p, n}, scheme))
        return false;
    field->p += n + 1;
    field->n -= n + 1;
    return true;
}

void sim_jwt_provider(const struct sim_creds *c, const struct sim_world *w,
                      struct sim_slice authorization, struct sim_claims *ret)
{
    struct jwt j;
    ret->kind = SIM_AUTH_MALFORMED;
    ret->key = -1;
    if (!take_scheme(&authorization, "bearer") || !read_jwt(authorization, &j, ret))
        return;
    ret->kind = SIM_AUTH_BAD;
    for (uint32_t i = 0; i < w->keys_count; i++)
        if (strcmp(w->keys[i].kid, j.kid) == 0)
            ret->key = (int)i;
    if (ret->key >= 0 && verify_es256(c->apns[ret->key], &j))
        ret->kind = SIM_AUTH_GOOD;
}

/* A P-256 public key of 65 raw bytes, NULL when they are no point of the curve. */
static EVP_PKEY *raw_key(const uint8_t raw[65])
{
    EVP_PKEY *key = NULL;
    char group[] = "P-256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)raw, 65),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    if (ctx && EVP_PKEY_fromdata_init(ctx) == 1)
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

/* Value of |name| in "t=.., k=..". */
static struct sim_slice parameter(struct sim_slice list, char name)
{
    for (uint32_t i = 0; i + 1 < list.n;) {
        while (i < list.n && (list.p[i] == ' ' || list.p[i] == ','))
            i++;
        uint32_t from = i;
        while (i < list.n && list.p[i] != ',')
            i++;
        uint32_t stop = i;
        while (stop > from && list.p[stop - 1] == ' ')
            stop--;
        if (stop - from > 2 && list.p[from] == name && list.p[from + 1] == '=')
            return (struct sim_slice){list.p + from + 2, stop - from - 2};
    }
    return (struct sim_slice){"", 0};
}

void sim_jwt_vapid(struct sim_slice authorization, struct sim_claims *ret)
{
    struct jwt j;
    uint8_t raw[65];
    ret->kind = SIM_AUTH_MALFORMED;
    ret->key = -1;
    if (!take_scheme(&authorization, "vapid") ||
        !read_jwt(parameter(authorization, 't'), &j, ret) ||
        sim_text_base64(parameter(authorization, 'k'), false, raw, sizeof(raw)) != 65)
        return;
    EVP_PKEY *key = raw_key(raw);
    ret->kind = key && verify_es256(key, &j) ? SIM_AUTH_GOOD : SIM_AUTH_BAD;
    EVP_PKEY_free(key);
}

void sim_jwt_assertion(const struct sim_creds *c, struct sim_slice assertion,
                       struct sim_claims *ret)
{
    struct jwt j;
    ret->kind = SIM_AUTH_MALFORMED;
    ret->key = -1;
    if (!read_jwt(assertion, &j, ret))
        return;
    bool good = strcmp(j.alg, "RS256") == 0 &&
                verify(c->oauth_key, j.signature, (size_t)j.signature_bytes, j.signed_part);
    ret->kind = good ? SIM_AUTH_GOOD : SIM_AUTH_BAD;
}

/* ---- access tokens: expiry and nonce under a MAC, so that no thread need remember them ---- */

static void access_mac(const struct sim_creds *c, const uint8_t raw[16], uint8_t out[16])
{
    uint8_t mac[32];
    unsigned n = sizeof(mac);
    HMAC(EVP_sha256(), c->secret, sizeof(c->secret), raw, 16, mac, &n);
    memcpy(out, mac, 16);
}

size_t sim_jwt_mint_access(const struct sim_creds *c, int64_t now_s, uint32_t ttl_s, uint64_t nonce,
                           char *out, size_t size)
{
    uint8_t raw[ACCESS_RAW_BYTES];
    char text[64];
    int64_t exp = now_s + ttl_s;
    memcpy(raw, &exp, 8);
    memcpy(raw + 8, &nonce, 8);
    access_mac(c, raw, raw + 16);
    sim_text_base64url(raw, sizeof(raw), text);
    int n = snprintf(out, size, ACCESS_PREFIX "%s", text);
    return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

void sim_jwt_access(const struct sim_creds *c, struct sim_slice authorization,
                    struct sim_claims *ret)
{
    uint8_t raw[ACCESS_RAW_BYTES], mac[16];
    const uint32_t prefix = sizeof(ACCESS_PREFIX) - 1;
    ret->kind = SIM_AUTH_MALFORMED;
    ret->key = -1;
    if (!take_scheme(&authorization, "bearer") || !sim_slice_begins(authorization, ACCESS_PREFIX))
        return;
    struct sim_slice text = {authorization.p + prefix, authorization.n - prefix};
    if (sim_text_base64(text, false, raw, sizeof(raw)) != ACCESS_RAW_BYTES)
        return;
    access_mac(c, raw, mac);
    ret->kind = CRYPTO_memcmp(mac, raw + 16, 16) == 0 ? SIM_AUTH_GOOD : SIM_AUTH_BAD;
    memcpy(&ret->exp, raw, 8);
}
