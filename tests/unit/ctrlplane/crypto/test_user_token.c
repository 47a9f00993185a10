/* JWTs of the API: every alg, every refusal; base64url; SHA-256 (WS-2, SEC-1, DESIGN 5). */
#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>

#include "belfry/base/base64url.h"
#include "belfry/base/err.h"
#include "belfry/conf/conf.h"
#include "crypto/hash.h"
#include "crypto/user_token.h"

#define NOW 1700000000u

static const char secret[] = "0123456789abcdef0123456789abcdef";

static struct bf_conf *conf_with(const char *kid, enum bf_jwt_alg alg, const void *key, size_t len,
                                 const char *audience)
{
    struct bf_conf *conf = calloc(1, sizeof(*conf));
    conf->jwt_audience = audience;
    conf->jwt_key_count = 1;
    snprintf(conf->jwt_keys[0].kid, sizeof(conf->jwt_keys[0].kid), "%s", kid);
    conf->jwt_keys[0].alg = alg;
    memcpy(conf->jwt_keys[0].key, key, len);
    conf->jwt_keys[0].len = (uint32_t)len;
    return conf;
}

static struct bf_token_keys *keys_of(struct bf_conf *conf)
{
    char err[256] = "";
    struct bf_token_keys *keys = NULL;
    cr_assert_eq(bf_token_keys_create(conf, &keys, err, sizeof(err)), 0, "%s", err);
    free(conf);
    return keys;
}

static struct bf_token_keys *hmac_keys(const char *kid, const char *audience)
{
    return keys_of(conf_with(kid, BF_JWT_HS256, secret, sizeof(secret) - 1, audience));
}

static enum bf_jwt_verdict verify(const struct bf_token_keys *keys, const char *token,
                                  struct bf_user_claims *claims)
{
    return bf_token_keys_verify(keys, (struct bf_bytes){token, strlen(token)}, NOW, claims);
}

static char *sign(const char *kid, const char *payload)
{
    return bf_token_sign_hs256(kid, (struct bf_bytes){payload, strlen(payload)}, BF_BYTES(secret));
}

static const struct {
    const char *kid, *payload;
    enum bf_jwt_verdict verdict;
} rows[] = {
    {"k", "{\"sub\":\"u\",\"exp\":1700000100}", BF_JWT_OK},
    {"", "{\"sub\":\"u\",\"exp\":1700000100}", BF_JWT_UNKNOWN_KEY},
    {"other", "{\"sub\":\"u\",\"exp\":1700000100}", BF_JWT_UNKNOWN_KEY},
    {"k", "{\"sub\":\"u\",\"exp\":1700000100.5,\"nbf\":1699999000}", BF_JWT_OK},
    {"k", "{\"sub\":\"u\",\"exp\":1699999971}", BF_JWT_OK}, /* within the leeway */
    {"k", "{\"sub\":\"u\",\"exp\":1699999970}", BF_JWT_EXPIRED},
    {"k", "{\"sub\":\"u\"}", BF_JWT_EXPIRED},
    {"k", "{\"sub\":\"u\",\"exp\":\"1700000100\"}", BF_JWT_MALFORMED},
    {"k", "{\"sub\":\"u\",\"exp\":-1}", BF_JWT_MALFORMED},
    {"k", "{\"sub\":\"u\",\"exp\":1700000100,\"nbf\":1700000030}", BF_JWT_OK},
    {"k", "{\"sub\":\"u\",\"exp\":1700000100,\"nbf\":1700000031}", BF_JWT_NOT_YET},
    {"k", "{\"exp\":1700000100}", BF_JWT_MALFORMED},
    {"k", "{\"sub\":\"\",\"exp\":1700000100}", BF_JWT_MALFORMED},
    {"k", "{\"sub\":7,\"exp\":1700000100}", BF_JWT_MALFORMED},
    {"k", "{\"sub\":\"a\\u0000b\",\"exp\":1700000100}", BF_JWT_MALFORMED},
    {"k", "{\"sub\":\"u\",\"sub\":\"v\",\"exp\":1700000100}", BF_JWT_MALFORMED},
    {"k", "[]", BF_JWT_MALFORMED},
    {"k", "{", BF_JWT_MALFORMED},
    {"k", "{\"sub\":\"u\",\"exp\":1700000100,\"tenant\":3}", BF_JWT_MALFORMED},
};

Test(crypto, claims)
{
    struct bf_token_keys *keys = hmac_keys("k", "");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bf_user_claims claims;
        char *token = sign(rows[i].kid, rows[i].payload);
        enum bf_jwt_verdict got = verify(keys, token, &claims);
        cr_assert_eq(got, rows[i].verdict, "%s: %s", rows[i].payload, bf_token_verdict_text(got));
        free(token);
    }
    bf_token_keys_destroy(keys);
    bf_token_keys_destroy(NULL);
}

Test(crypto, user_and_tenant)
{
    struct bf_user_claims claims;
    struct bf_token_keys *keys = hmac_keys("", "");
    char *token = sign("any", "{\"sub\":\"J\xc3\xbcrgen\",\"exp\":1700000100,\"tenant\":\"acme\"}");
    cr_assert_eq(verify(keys, token, &claims), BF_JWT_OK, "a key without kid answers any");
    cr_assert_str_eq(claims.user, "J\xc3\xbcrgen");
    cr_assert_str_eq(claims.tenant, "acme");
    cr_assert_eq(claims.expires_s, 1700000100);
    free(token);
    bf_token_keys_destroy(keys);
}

Test(crypto, audience)
{
    struct bf_user_claims claims;
    struct bf_token_keys *keys = hmac_keys("k", "belfry");
    static const struct {
        const char *aud;
        enum bf_jwt_verdict verdict;
    } auds[] = {{"\"belfry\"", BF_JWT_OK},
                {"[\"x\",\"belfry\"]", BF_JWT_OK},
                {"\"other\"", BF_JWT_AUDIENCE},
                {"[]", BF_JWT_AUDIENCE},
                {"7", BF_JWT_AUDIENCE}};
    for (size_t i = 0; i < sizeof(auds) / sizeof(auds[0]); i++) {
        char payload[128];
        snprintf(payload, sizeof(payload), "{\"sub\":\"u\",\"exp\":1700000100,\"aud\":%s}",
                 auds[i].aud);
        char *token = sign("k", payload);
        cr_assert_eq(verify(keys, token, &claims), auds[i].verdict, "%s", auds[i].aud);
        free(token);
    }
    bf_token_keys_destroy(keys);
}

Test(crypto, any_changed_byte_is_noticed)
{
    struct bf_user_claims claims;
    struct bf_token_keys *keys = hmac_keys("k", "");
    char *token = sign("k", "{\"sub\":\"u\",\"exp\":1700000100}");
    for (size_t i = 0; i < strlen(token); i++) {
        char was = token[i];
        token[i] = was == 'A' ? 'B' : 'A';
        cr_assert_neq(verify(keys, token, &claims), BF_JWT_OK, "byte %zu", i);
        token[i] = was;
    }
    cr_assert_eq(verify(keys, token, &claims), BF_JWT_OK);
    free(token);
    bf_token_keys_destroy(keys);
}

static const char *const shapes[] = {
    "",
    ".",
    "..",
    "a.b",
    "a.b.c.d",
    "eyJhbGciOiJub25lIn0.e30.",
    "eyJhbGciOiJub25lIn0..",
    "!!!.e30.AA",
    "eyJhbGciOiJIUzI1NiIsImNyaXQiOlsiYiJdfQ.e30.AA",
};

Test(crypto, shapes_that_are_no_token)
{
    struct bf_user_claims claims;
    struct bf_token_keys *keys = hmac_keys("", "");
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        cr_assert_neq(verify(keys, shapes[i], &claims), BF_JWT_OK, "%s", shapes[i]);
    bf_token_keys_destroy(keys);
}

/* ---- public keys: pairs made here ---- */

static EVP_PKEY *make_pair(enum bf_jwt_alg alg)
{
    if (alg == BF_JWT_RS256)
        return EVP_RSA_gen(2048);
    return alg == BF_JWT_ES256 ? EVP_EC_gen("prime256v1")
                               : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
}

static size_t public_pem(EVP_PKEY *pair, char *out, size_t cap)
{
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PUBKEY(bio, pair);
    int n = BIO_read(bio, out, (int)cap);
    BIO_free(bio);
    return (size_t)n;
}

/* DER ECDSA signature to JOSE's r||s. */
static size_t jose_ecdsa(const uint8_t *der, uint8_t out[64])
{
    const uint8_t *at = der + 2;
    for (int i = 0; i < 2; i++) {
        size_t len = at[1];
        const uint8_t *num = at + 2;
        for (; len > 32; len--)
            num++;
        memset(out + 32 * i, 0, 32);
        memcpy(out + 32 * i + (32 - len), num, len);
        at += 2 + at[1];
    }
    return 64;
}

static void sign_public(EVP_PKEY *pair, enum bf_jwt_alg alg, const char *name, char *out)
{
    char header[64];
    static const char payload[] = "{\"sub\":\"u\",\"exp\":1700000100}";
    uint8_t sig[512], jose[64];
    size_t sig_len = sizeof(sig);
    int h = snprintf(header, sizeof(header), "{\"alg\":\"%s\",\"kid\":\"k\"}", name);
    size_t n = bf_base64url_encode((uint8_t *)header, (size_t)h, out);
    out[n++] = '.';
    n += bf_base64url_encode((const uint8_t *)payload, sizeof(payload) - 1, out + n);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_DigestSignInit(ctx, NULL, alg == BF_JWT_EDDSA ? NULL : EVP_sha256(), NULL, pair);
    EVP_DigestSign(ctx, sig, &sig_len, (uint8_t *)out, n);
    EVP_MD_CTX_free(ctx);
    out[n++] = '.';
    if (alg == BF_JWT_ES256)
        n += bf_base64url_encode(jose, jose_ecdsa(sig, jose), out + n);
    else
        n += bf_base64url_encode(sig, sig_len, out + n);
    out[n] = '\0';
}

static const char *const names[] = {"HS256", "RS256", "ES256", "EdDSA"};

Test(crypto, every_public_alg)
{
    for (enum bf_jwt_alg alg = BF_JWT_RS256; alg <= BF_JWT_EDDSA; alg++) {
        char pem[2048], token[2048];
        struct bf_user_claims claims;
        EVP_PKEY *pair = make_pair(alg);
        size_t len = public_pem(pair, pem, sizeof(pem));
        struct bf_token_keys *keys = keys_of(conf_with("k", alg, pem, len, ""));
        for (int i = 0; i < 8; i++) { /* ECDSA's r and s vary in length */
            sign_public(pair, alg, names[alg], token);
            cr_assert_eq(verify(keys, token, &claims), BF_JWT_OK, "%s", names[alg]);
        }
        /* the key's alg decides: the same PEM is never an HMAC secret (RFC 8725) */
        char *forged = bf_token_sign_hs256("k", BF_BYTES("{\"sub\":\"u\",\"exp\":1700000100}"),
                                           (struct bf_bytes){pem, len});
        cr_assert_eq(verify(keys, forged, &claims), BF_JWT_UNKNOWN_KEY);
        free(forged);
        bf_token_keys_destroy(keys);
        EVP_PKEY_free(pair);
    }
}

Test(crypto, keys_of_another_kind_are_refused)
{
    char pem[2048], err[256];
    struct bf_token_keys *keys = NULL;
    EVP_PKEY *pair = make_pair(BF_JWT_ES256);
    size_t len = public_pem(pair, pem, sizeof(pem));
    struct bf_conf *conf = conf_with("k", BF_JWT_RS256, pem, len, "");
    cr_assert_eq(bf_token_keys_create(conf, &keys, err, sizeof(err)), BF_ERR_MALFORMED);
    cr_assert(strstr(err, "RS256") != NULL);
    cr_assert_null(keys);
    free(conf);
    EVP_PKEY_free(pair);
}

Test(crypto, base64url)
{
    uint8_t in[64], back[64];
    char text[96];
    for (size_t len = 0; len < sizeof(in); len++) {
        for (size_t i = 0; i < len; i++)
            in[i] = (uint8_t)(i * 37 + len);
        size_t n = bf_base64url_encode(in, len, text);
        cr_assert_eq(bf_base64url_decode((struct bf_bytes){text, n}, back, sizeof(back)),
                     (long)len);
        cr_assert_eq(memcmp(in, back, len), 0);
    }
    cr_assert_eq(bf_base64url_decode(BF_BYTES("A"), back, sizeof(back)), -1);
    cr_assert_eq(bf_base64url_decode(BF_BYTES("AB"), back, sizeof(back)), -1, "left-over bits");
    cr_assert_eq(bf_base64url_decode(BF_BYTES("A+/="), back, sizeof(back)), -1);
    cr_assert_eq(bf_base64url_decode(BF_BYTES("AAAA"), back, 2), -1, "does not fit");
}

Test(crypto, sha256)
{
    static const uint8_t abc[] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea};
    uint8_t hash[BF_SHA256_BYTES];
    bf_sha256(BF_BYTES("abc"), hash);
    cr_assert_eq(memcmp(hash, abc, sizeof(abc)), 0);
    cr_assert(bf_is_same_secret(hash, hash, sizeof(hash)));
}
