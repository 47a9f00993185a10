/*
 * JWT: every alg, and every refusal. Keys are made here with OpenSSL; the published vectors of RFC
 * 7515 A.1 (HS256) and RFC 8037 A.4 (Ed25519) check that both sides are not wrong alike.
 */
#include <criterion/criterion.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "tls/jwt.h"

#define NOW    UINT64_C(1700000000)
#define SECRET "0123456789abcdef0123456789abcdef"
#define GOOD   "{\"sub\":\"u1\",\"exp\":1700000100}"

/* ---- tools ---- */

static size_t base64url(const void *in, size_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const uint8_t *p = in;
    size_t n = 0;
    uint32_t bits = 0;
    unsigned have = 0;
    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | p[i];
        for (have += 8; have >= 6; have -= 6)
            out[n++] = digits[bits >> (have - 6) & 63];
    }
    if (have > 0)
        out[n++] = digits[bits << (6 - have) & 63];
    return n;
}

struct keypair {
    enum bf_jwt_alg alg;
    EVP_PKEY *pkey;
    char pem[4096];
    size_t pem_len;
};

static struct keypair make_key(enum bf_jwt_alg alg)
{
    struct keypair k = {.alg = alg};
    if (alg == BF_JWT_RS256)
        k.pkey = EVP_RSA_gen(2048);
    else if (alg == BF_JWT_ES256)
        k.pkey = EVP_EC_gen("P-256");
    else
        k.pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    cr_assert_neq(k.pkey, NULL);
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PUBKEY(bio, k.pkey);
    k.pem_len = (size_t)BIO_read(bio, k.pem, sizeof(k.pem));
    BIO_free(bio);
    return k;
}

/* DER of ECDSA to the raw R||S of RFC 7518 3.4. */
static size_t raw_ecdsa(uint8_t *sig, size_t len)
{
    const uint8_t *p = sig;
    ECDSA_SIG *parts = d2i_ECDSA_SIG(NULL, &p, (long)len);
    BN_bn2binpad(ECDSA_SIG_get0_r(parts), sig, 32);
    BN_bn2binpad(ECDSA_SIG_get0_s(parts), sig + 32, 32);
    ECDSA_SIG_free(parts);
    return 64;
}

static size_t sign(const struct keypair *k, const char *text, size_t len, uint8_t *sig)
{
    size_t n = 1024;
    if (k->alg == BF_JWT_HS256) {
        unsigned mac_len = 0;
        HMAC(EVP_sha256(), k->pem, (int)k->pem_len, (const uint8_t *)text, len, sig, &mac_len);
        return mac_len;
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const EVP_MD *md = k->alg == BF_JWT_EDDSA ? NULL : EVP_sha256();
    cr_assert_eq(EVP_DigestSignInit(ctx, NULL, md, NULL, k->pkey), 1);
    cr_assert_eq(EVP_DigestSign(ctx, sig, &n, (const uint8_t *)text, len), 1);
    EVP_MD_CTX_free(ctx);
    return k->alg == BF_JWT_ES256 ? raw_ecdsa(sig, n) : n;
}

static const char *const alg_text[] = {"HS256", "RS256", "ES256", "EdDSA"};

/* Signs |header| and |payload| as they are. The result is static. */
static struct bf_bytes token_raw(const struct keypair *k, const char *header, const char *payload)
{
    static char out[4 * BF_JWT_BYTES_MAX];
    uint8_t sig[1024];
    size_t n = base64url(header, strlen(header), out);
    out[n++] = '.';
    n += base64url(payload, strlen(payload), out + n);
    size_t sig_len = sign(k, out, n, sig);
    out[n++] = '.';
    n += base64url(sig, sig_len, out + n);
    return (struct bf_bytes){.at = out, .len = n};
}

static struct bf_bytes token(const struct keypair *k, const char *payload)
{
    char header[64];
    snprintf(header, sizeof(header), "{\"alg\":\"%s\",\"typ\":\"JWT\"}", alg_text[k->alg]);
    return token_raw(k, header, payload);
}

static void free_key(struct keypair *k)
{
    EVP_PKEY_free(k->pkey);
}

static struct keypair hmac_key(const char *secret)
{
    struct keypair k = {.alg = BF_JWT_HS256};
    k.pem_len = strlen(secret);
    memcpy(k.pem, secret, k.pem_len);
    return k;
}

/* A snapshot under construction. */
struct snap {
    uint8_t bytes[32768];
    struct bf_writer w;
};

static void snap_record(struct snap *s, uint16_t tag, const void *value, size_t len)
{
    s->w.buf = s->bytes;
    s->w.cap = sizeof(s->bytes);
    bf_put_u16(&s->w, tag);
    bf_put_str32(&s->w, (struct bf_bytes){.at = value, .len = len});
    cr_assert_not(s->w.failed);
}

static void snap_key(struct snap *s, const char *kid, uint8_t alg, const char *key, size_t len)
{
    uint8_t value[8192];
    struct bf_writer w = {.buf = value, .cap = sizeof(value)};
    bf_put_str16(&w, (struct bf_bytes){.at = kid, .len = strlen(kid)});
    bf_put_u8(&w, alg);
    bf_put_str16(&w, (struct bf_bytes){.at = key, .len = len});
    snap_record(s, BF_SNAP_JWT_KEY, value, w.len);
}

static struct bf_jwt_keys *snap_keys(const struct snap *s)
{
    struct bf_jwt_keys *keys = NULL;
    cr_assert_eq(bf_jwt_keys_create(s->bytes, s->w.len, &keys), 0);
    return keys;
}

static struct bf_jwt_keys *one_key(const struct keypair *k, const char *kid)
{
    struct snap s = {.w = {.len = 0}};
    snap_key(&s, kid, (uint8_t)k->alg, k->pem, k->pem_len);
    return snap_keys(&s);
}

static enum bf_jwt_verdict verify(const struct bf_jwt_keys *keys, struct bf_bytes t)
{
    struct bf_claims claims;
    return bf_jwt_verify(keys, t, NOW, &claims);
}

/* ---- published vectors ---- */

Test(jwt, rfc7515_a1)
{
    static const uint8_t key[] = {3,   35,  53,  75,  43,  15,  165, 188, 131, 126, 6,   101, 119,
                                  123, 166, 143, 90,  179, 40,  230, 240, 84,  201, 40,  169, 15,
                                  132, 178, 210, 80,  46,  191, 211, 251, 90,  146, 210, 6,   71,
                                  239, 150, 138, 180, 195, 119, 98,  61,  34,  61,  46,  33,  114,
                                  5,   46,  79,  8,   192, 205, 154, 245, 103, 208, 128, 163};
    struct bf_bytes t = BF_BYTES(
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0"
        "cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    struct snap s = {.w = {.len = 0}};
    snap_key(&s, "", BF_JWT_HS256, (const char *)key, sizeof(key));
    struct bf_jwt_keys *keys = snap_keys(&s);
    /* the signature holds; the claims have no sub */
    cr_expect_eq(verify(keys, t), BF_JWT_MALFORMED);
    char bent[512];
    memcpy(bent, t.at, t.len);
    bent[t.len - 5] ^= 1;
    cr_expect_eq(verify(keys, (struct bf_bytes){bent, t.len}), BF_JWT_BAD_SIGNATURE);
    bf_jwt_keys_destroy(keys);
}

Test(jwt, rfc8037_a4)
{
    const char pem[] = "-----BEGIN PUBLIC KEY-----\n"
                       "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
                       "-----END PUBLIC KEY-----\n";
    struct bf_bytes t =
        BF_BYTES("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
                 "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVs"
                 "Pt9g7sVvpAr_MuM0KAg");
    struct snap s = {.w = {.len = 0}};
    snap_key(&s, "", BF_JWT_EDDSA, pem, sizeof(pem) - 1);
    struct bf_jwt_keys *keys = snap_keys(&s);
    /* the signature holds; the payload is no JSON */
    cr_expect_eq(verify(keys, t), BF_JWT_MALFORMED);
    char bent[512];
    memcpy(bent, t.at, t.len);
    bent[t.len - 5] ^= 1;
    cr_expect_eq(verify(keys, (struct bf_bytes){bent, t.len}), BF_JWT_BAD_SIGNATURE);
    bf_jwt_keys_destroy(keys);
}

/* ---- every alg ---- */

static void alg_holds(const struct keypair *k, const struct keypair *other)
{
    struct bf_jwt_keys *keys = one_key(k, "");
    struct bf_claims claims;
    for (unsigned i = 0; i < 50; i++) { /* R and S of ES256 come with and without leading zeros */
        char payload[128];
        snprintf(payload, sizeof(payload), "{\"sub\":\"user %u\",\"exp\":1700000100}", i);
        struct bf_bytes t = token(k, payload);
        cr_assert_eq(bf_jwt_verify(keys, t, NOW, &claims), BF_JWT_OK);
        cr_expect_eq(claims.expires_s, NOW + 100);
        cr_expect_eq(memcmp(claims.user, payload + 8, claims.user_len), 0);
    }
    cr_expect_eq(verify(keys, token(other, GOOD)), BF_JWT_BAD_SIGNATURE);
    /* one bit of any part changed, anywhere */
    struct bf_bytes t = token(k, GOOD);
    for (size_t i = 0; i < t.len; i++) {
        static char bent[4 * BF_JWT_BYTES_MAX];
        memcpy(bent, t.at, t.len);
        bent[i] = bent[i] == 'A' ? 'B' : 'A';
        cr_expect_neq(verify(keys, (struct bf_bytes){bent, t.len}), BF_JWT_OK, "byte %zu", i);
        cr_expect_neq(verify(keys, (struct bf_bytes){t.at, i}), BF_JWT_OK, "cut at %zu", i);
    }
    bf_jwt_keys_destroy(keys);
}

Test(jwt, hs256)
{
    struct keypair k = hmac_key(SECRET), other = hmac_key("another secret, of 32 bytes too!");
    alg_holds(&k, &other);
}

Test(jwt, rs256)
{
    struct keypair k = make_key(BF_JWT_RS256), other = make_key(BF_JWT_RS256);
    alg_holds(&k, &other);
    free_key(&k);
    free_key(&other);
}

Test(jwt, es256)
{
    struct keypair k = make_key(BF_JWT_ES256), other = make_key(BF_JWT_ES256);
    alg_holds(&k, &other);
    free_key(&k);
    free_key(&other);
}

Test(jwt, eddsa)
{
    struct keypair k = make_key(BF_JWT_EDDSA), other = make_key(BF_JWT_EDDSA);
    alg_holds(&k, &other);
    free_key(&k);
    free_key(&other);
}

Test(jwt, es256_with_short_numbers)
{
    /* leading zero bytes in R or S must not change the meaning: sign until both were seen */
    struct keypair k = make_key(BF_JWT_ES256);
    struct bf_jwt_keys *keys = one_key(&k, "");
    unsigned zeros = 0;
    for (unsigned i = 0; i < 20000 && zeros < 3; i++) {
        struct bf_bytes t = token(&k, GOOD);
        const char *sig = strrchr(t.at, '.');
        if (sig[1] == 'A' && sig[2] < 'Q' && sig[2] >= 'A') {
            zeros++;
            cr_expect_eq(verify(keys, t), BF_JWT_OK);
        }
    }
    cr_expect_gt(zeros, 0);
    bf_jwt_keys_destroy(keys);
    free_key(&k);
}

/* ---- which key ---- */

Test(jwt, a_key_serves_its_own_alg_only)
{
    /* the classic: an RSA public key used as HMAC secret */
    struct keypair rsa = make_key(BF_JWT_RS256);
    struct bf_jwt_keys *keys = one_key(&rsa, "");
    struct keypair forged = rsa;
    forged.alg = BF_JWT_HS256;
    cr_expect_eq(verify(keys, token(&forged, GOOD)), BF_JWT_UNKNOWN_KEY);
    cr_expect_eq(verify(keys, token(&rsa, GOOD)), BF_JWT_OK);
    bf_jwt_keys_destroy(keys);
    free_key(&rsa);
}

Test(jwt, algs_that_are_not_ours)
{
    static const char *const headers[] = {
        "{\"alg\":\"none\"}",  "{\"alg\":\"None\"}",         "{\"alg\":\"\"}",
        "{\"alg\":\"hs256\"}", "{\"alg\":\"HS384\"}",        "{\"alg\":\"HS2567\"}",
        "{\"alg\":\"PS256\"}", "{\"alg\":\"HS256\\u0000\"}",
    };
    struct keypair k = hmac_key(SECRET);
    struct bf_jwt_keys *keys = one_key(&k, "");
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
        cr_expect_eq(verify(keys, token_raw(&k, headers[i], GOOD)), BF_JWT_UNKNOWN_KEY, "%s",
                     headers[i]);
    /* unsigned, the third part empty */
    cr_expect_eq(verify(keys, BF_BYTES("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSJ9.")),
                 BF_JWT_UNKNOWN_KEY);
    cr_expect_eq(verify(keys, BF_BYTES("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MSJ9.")),
                 BF_JWT_BAD_SIGNATURE);
    bf_jwt_keys_destroy(keys);
}

Test(jwt, kid)
{
    struct keypair a = hmac_key("secret a secret a secret a secret a");
    struct keypair b = hmac_key("secret b secret b secret b secret b");
    struct keypair any = hmac_key("secret of any, secret of any, any");
    struct snap s = {.w = {.len = 0}};
    snap_key(&s, "a", BF_JWT_HS256, a.pem, a.pem_len);
    snap_key(&s, "b", BF_JWT_HS256, b.pem, b.pem_len);
    struct bf_jwt_keys *keys = snap_keys(&s);
    const char *kid_a = "{\"alg\":\"HS256\",\"kid\":\"a\"}",
               *kid_b = "{\"alg\":\"HS256\",\"kid\":\"b\"}";
    const char *kid_c = "{\"alg\":\"HS256\",\"kid\":\"c\"}", *no_kid = "{\"alg\":\"HS256\"}";
    const char *kid_es = "{\"alg\":\"ES256\",\"kid\":\"a\"}";
    cr_expect_eq(verify(keys, token_raw(&a, kid_a, GOOD)), BF_JWT_OK);
    cr_expect_eq(verify(keys, token_raw(&b, kid_b, GOOD)), BF_JWT_OK);
    cr_expect_eq(verify(keys, token_raw(&a, kid_b, GOOD)), BF_JWT_BAD_SIGNATURE);
    cr_expect_eq(verify(keys, token_raw(&a, kid_c, GOOD)), BF_JWT_UNKNOWN_KEY);
    cr_expect_eq(verify(keys, token_raw(&a, no_kid, GOOD)), BF_JWT_UNKNOWN_KEY);
    cr_expect_eq(verify(keys, token_raw(&a, kid_es, GOOD)), BF_JWT_UNKNOWN_KEY);
    bf_jwt_keys_destroy(keys);
    snap_key(&s, "", BF_JWT_HS256, any.pem, any.pem_len);
    keys = snap_keys(&s);
    cr_expect_eq(verify(keys, token_raw(&any, no_kid, GOOD)), BF_JWT_OK);
    cr_expect_eq(verify(keys, token_raw(&any, kid_c, GOOD)), BF_JWT_OK);
    cr_expect_eq(verify(keys, token_raw(&any, kid_a, GOOD)), BF_JWT_BAD_SIGNATURE);
    cr_expect_eq(verify(keys, token_raw(&a, kid_c, GOOD)), BF_JWT_BAD_SIGNATURE);
    bf_jwt_keys_destroy(keys);
}

Test(jwt, two_keys_of_one_kid_during_rotation)
{
    struct keypair a = hmac_key("secret a secret a secret a secret a");
    struct keypair b = hmac_key("secret b secret b secret b secret b");
    struct snap s = {.w = {.len = 0}};
    snap_key(&s, "", BF_JWT_HS256, a.pem, a.pem_len);
    snap_key(&s, "", BF_JWT_HS256, b.pem, b.pem_len);
    struct bf_jwt_keys *keys = snap_keys(&s);
    cr_expect_eq(verify(keys, token(&a, GOOD)), BF_JWT_OK);
    cr_expect_eq(verify(keys, token(&b, GOOD)), BF_JWT_OK);
    bf_jwt_keys_destroy(keys);
}

Test(jwt, an_empty_set_knows_no_key)
{
    struct bf_jwt_keys *keys = NULL;
    struct keypair k = hmac_key(SECRET);
    cr_assert_eq(bf_jwt_keys_create(NULL, 0, &keys), 0);
    cr_expect_eq(verify(keys, token(&k, GOOD)), BF_JWT_UNKNOWN_KEY);
    bf_jwt_keys_destroy(keys);
    bf_jwt_keys_destroy(NULL);
}

/* ---- headers, claims ---- */

Test(jwt, headers)
{
    static const struct {
        const char *header;
        enum bf_jwt_verdict want;
    } rows[] = {
        {"{\"alg\":\"HS256\"}", BF_JWT_OK},
        {"{ \"alg\" : \"HS256\" , \"x\" : [1,2,{}] }", BF_JWT_OK},
        {"{\"alg\":\"HS256\",\"typ\":\"at+jwt\"}", BF_JWT_OK},
        {"{}", BF_JWT_MALFORMED},
        {"[]", BF_JWT_MALFORMED},
        {"{\"alg\":1}", BF_JWT_MALFORMED},
        {"{\"alg\":null}", BF_JWT_MALFORMED},
        {"{\"alg\":\"HS256\",\"alg\":\"none\"}", BF_JWT_MALFORMED},
        {"{\"alg\":\"HS256\",\"kid\":1}", BF_JWT_MALFORMED},
        {"{\"alg\":\"HS256\",\"kid\":\"a\",\"kid\":\"a\"}", BF_JWT_MALFORMED},
        {"{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}", BF_JWT_MALFORMED},
        {"{\"alg\":\"HS256\"", BF_JWT_MALFORMED},
        {"{\"alg\":\"HS256\"}x", BF_JWT_MALFORMED},
        {"", BF_JWT_MALFORMED},
    };
    struct keypair k = hmac_key(SECRET);
    struct bf_jwt_keys *keys = one_key(&k, "");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect_eq(verify(keys, token_raw(&k, rows[i].header, GOOD)), rows[i].want, "%s",
                     rows[i].header);
    bf_jwt_keys_destroy(keys);
}

Test(jwt, claims)
{
    static const struct {
        const char *payload;
        enum bf_jwt_verdict want;
    } rows[] = {
        {GOOD, BF_JWT_OK},
        {"{\"sub\":\"\xc3\xa9 \xf0\x9f\x94\x94\",\"exp\":1700000100,\"iat\":\"whatever\"}",
         BF_JWT_OK},
        {"{\"sub\":\"u\",\"exp\":1700000000.75}", BF_JWT_OK},
        {"{\"sub\":\"u\",\"exp\":1.7000001e9}", BF_JWT_OK},
        /* exp and its leeway of 30 s */
        {"{\"sub\":\"u\",\"exp\":1699999971}", BF_JWT_OK},
        {"{\"sub\":\"u\",\"exp\":1699999970}", BF_JWT_EXPIRED},
        {"{\"sub\":\"u\",\"exp\":0}", BF_JWT_EXPIRED},
        {"{\"sub\":\"u\"}", BF_JWT_EXPIRED},
        {"{\"sub\":\"u\",\"exp\":\"1700000100\"}", BF_JWT_MALFORMED},
        {"{\"sub\":\"u\",\"exp\":-1}", BF_JWT_MALFORMED},
        {"{\"sub\":\"u\",\"exp\":1e300}", BF_JWT_MALFORMED},
        {"{\"sub\":\"u\",\"exp\":null}", BF_JWT_MALFORMED},
        {"{\"sub\":\"u\",\"exp\":99999999999999999999}", BF_JWT_MALFORMED},
        {"{\"sub\":\"u\",\"exp\":1,\"exp\":1700000100}", BF_JWT_MALFORMED},
        /* nbf */
        {"{\"sub\":\"u\",\"exp\":1700000100,\"nbf\":1700000000}", BF_JWT_OK},
        {"{\"sub\":\"u\",\"exp\":1700000100,\"nbf\":1700000030}", BF_JWT_OK},
        {"{\"sub\":\"u\",\"exp\":1700000100,\"nbf\":1700000031}", BF_JWT_NOT_YET},
        {"{\"sub\":\"u\",\"exp\":1700000100,\"nbf\":\"x\"}", BF_JWT_MALFORMED},
        /* sub */
        {"{\"exp\":1700000100}", BF_JWT_MALFORMED},
        {"{\"sub\":\"\",\"exp\":1700000100}", BF_JWT_MALFORMED},
        {"{\"sub\":7,\"exp\":1700000100}", BF_JWT_MALFORMED},
        {"{\"sub\":\"a\\u0000b\",\"exp\":1700000100}", BF_JWT_MALFORMED},
        {"{\"sub\":\"a\\nb\",\"exp\":1700000100}", BF_JWT_MALFORMED},
        {"{\"sub\":\"a\",\"sub\":\"b\",\"exp\":1700000100}", BF_JWT_MALFORMED},
        /* tenant */
        {"{\"sub\":\"u\",\"exp\":1700000100,\"tenant\":\"t\"}", BF_JWT_OK},
        {"{\"sub\":\"u\",\"exp\":1700000100,\"tenant\":7}", BF_JWT_MALFORMED},
        {"{\"sub\":\"u\",\"exp\":1700000100,\"tenant\":"
         "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaa\"}",
         BF_JWT_MALFORMED},
        /* topics */
        {"{\"sub\":\"u\",\"exp\":1700000100,\"topics\":[]}", BF_JWT_OK},
        {"{\"sub\":\"u\",\"exp\":1700000100,\"topics\":\"news\"}", BF_JWT_MALFORMED},
        {"{\"sub\":\"u\",\"exp\":1700000100,\"topics\":[1]}", BF_JWT_MALFORMED},
        {"{\"sub\":\"u\",\"exp\":1700000100,\"topics\":[\"\"]}", BF_JWT_MALFORMED},
        {"{\"sub\":\"u\",\"exp\":1700000100,\"topics\":[\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\","
         "\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\","
         "\"0\","
         "\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\"]}",
         BF_JWT_MALFORMED},
        /* not an object */
        {"", BF_JWT_MALFORMED},
        {"7", BF_JWT_MALFORMED},
        {"{\"sub\":\"u\",\"exp\":1700000100", BF_JWT_MALFORMED},
        {"{\"sub\":\"\xff\",\"exp\":1700000100}", BF_JWT_MALFORMED},
    };
    struct keypair k = hmac_key(SECRET);
    struct bf_jwt_keys *keys = one_key(&k, "");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect_eq(verify(keys, token(&k, rows[i].payload)), rows[i].want, "%s", rows[i].payload);
    bf_jwt_keys_destroy(keys);
}

Test(jwt, claims_are_handed_over)
{
    struct keypair k = hmac_key(SECRET);
    struct bf_jwt_keys *keys = one_key(&k, "");
    struct bf_claims claims;
    struct bf_bytes t = token(&k, "{\"tenant\":\"acme\",\"topics\":[\"news\",\"team.*\"],\"exp\":"
                                  "1700000100,\"sub\":\"bob\"}");
    cr_assert_eq(bf_jwt_verify(keys, t, NOW, &claims), BF_JWT_OK);
    cr_expect(claims.user_len == 3 && memcmp(claims.user, "bob", 3) == 0);
    cr_expect(claims.tenant_len == 4 && memcmp(claims.tenant, "acme", 4) == 0);
    cr_expect_eq(claims.expires_s, 1700000100);
    cr_expect_eq(claims.topic_count, 2);
    cr_expect(claims.topic_len[0] == 4 && memcmp(claims.topics[0], "news", 4) == 0);
    cr_expect(claims.topic_len[1] == 6 && memcmp(claims.topics[1], "team.*", 6) == 0);
    /* the next one starts from nothing */
    cr_assert_eq(bf_jwt_verify(keys, token(&k, GOOD), NOW, &claims), BF_JWT_OK);
    cr_expect_eq(claims.topic_count + claims.tenant_len, 0);
    /* and a refused one leaves the caller's claims alone */
    memset(&claims, 0x5a, sizeof(claims));
    cr_assert_eq(bf_jwt_verify(keys, token(&k, "{\"sub\":\"eve\"}"), NOW, &claims), BF_JWT_EXPIRED);
    cr_expect_eq(claims.user[0], 0x5a);
    bf_jwt_keys_destroy(keys);
}

Test(jwt, audience)
{
    static const struct {
        const char *aud;
        enum bf_jwt_verdict want;
    } rows[] = {
        {"\"belfry\"", BF_JWT_OK},
        {"[\"x\",\"belfry\"]", BF_JWT_OK},
        {"\"other\"", BF_JWT_AUDIENCE},
        {"[\"x\",\"y\"]", BF_JWT_AUDIENCE},
        {"[]", BF_JWT_AUDIENCE},
        {"7", BF_JWT_AUDIENCE},
        {"{\"a\":\"belfry\"}", BF_JWT_AUDIENCE},
        {"\"belfry2\"", BF_JWT_AUDIENCE},
        {"[[\"belfry\"]]", BF_JWT_AUDIENCE},
        {"null", BF_JWT_AUDIENCE},
    };
    struct keypair k = hmac_key(SECRET);
    struct snap s = {.w = {.len = 0}};
    snap_key(&s, "", BF_JWT_HS256, k.pem, k.pem_len);
    snap_record(&s, BF_SNAP_JWT_AUDIENCE, "belfry", 6);
    struct bf_jwt_keys *keys = snap_keys(&s);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char payload[256];
        snprintf(payload, sizeof(payload), "{\"sub\":\"u\",\"exp\":1700000100,\"aud\":%s}",
                 rows[i].aud);
        cr_expect_eq(verify(keys, token(&k, payload)), rows[i].want, "%s", rows[i].aud);
    }
    cr_expect_eq(verify(keys, token(&k, GOOD)), BF_JWT_AUDIENCE);
    bf_jwt_keys_destroy(keys);
}

Test(jwt, shapes)
{
    static char big[BF_JWT_BYTES_MAX + 2];
    struct keypair k = hmac_key(SECRET);
    struct bf_jwt_keys *keys = one_key(&k, "");
    static const char *const bad[] = {
        "",           ".",           "..",          "...",          "a",
        "a.b",        "a.b.c.d",     "e30.e30.e30", "e30=.e30.e30", "e30 .e30.e30",
        "e3.e30.e30", "e30.e3*.e30", "e31.e30.e30", "+30.e30.e30",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(verify(keys, (struct bf_bytes){bad[i], strlen(bad[i])}), BF_JWT_MALFORMED,
                     "%s", bad[i]);
    memset(big, 'A', sizeof(big));
    big[10] = big[20] = '.';
    cr_expect_eq(verify(keys, (struct bf_bytes){big, sizeof(big)}), BF_JWT_MALFORMED);
    cr_expect_eq(verify(keys, (struct bf_bytes){big, BF_JWT_BYTES_MAX}), BF_JWT_MALFORMED);
    bf_jwt_keys_destroy(keys);
}

Test(jwt, sizes)
{
    static char payload[BF_JWT_PAYLOAD_BYTES_MAX + 64];
    struct keypair k = hmac_key(SECRET);
    struct bf_jwt_keys *keys = one_key(&k, "");
    /* the longest token there may be: 6,000 bytes of payload are 8,000 of the 8,192; 6,120 are too
     * many */
    for (size_t len = 6000; len <= 6120; len += 120) {
        size_t n = (size_t)snprintf(payload, sizeof(payload),
                                    "{\"sub\":\"u\",\"exp\":1700000100,\"x\":\"");
        memset(payload + n, 'y', len - 2 - n);
        memcpy(payload + len - 2, "\"}", 3);
        struct bf_bytes t = token(&k, payload);
        cr_expect_eq(verify(keys, t), t.len <= BF_JWT_BYTES_MAX ? BF_JWT_OK : BF_JWT_MALFORMED);
        cr_expect_eq(t.len <= BF_JWT_BYTES_MAX, len == 6000);
    }
    /* a payload of many small values takes the most memory; it must fit */
    size_t n =
        (size_t)snprintf(payload, sizeof(payload), "{\"sub\":\"u\",\"exp\":1700000100,\"x\":[1");
    while (n + 4 <= 6000)
        n += (size_t)snprintf(payload + n, sizeof(payload) - n, ",1");
    snprintf(payload + n, sizeof(payload) - n, "]}");
    cr_expect_eq(verify(keys, token(&k, payload)), BF_JWT_OK);
    char user[BF_USER_ID_BYTES_MAX + 2] = {0};
    memset(user, 'u', BF_USER_ID_BYTES_MAX + 1);
    snprintf(payload, sizeof(payload), "{\"sub\":\"%s\",\"exp\":1700000100}", user);
    cr_expect_eq(verify(keys, token(&k, payload)), BF_JWT_MALFORMED);
    snprintf(payload, sizeof(payload), "{\"sub\":\"%s\",\"exp\":1700000100}", user + 1);
    cr_expect_eq(verify(keys, token(&k, payload)), BF_JWT_OK);
    bf_jwt_keys_destroy(keys);
}

/* ---- snapshots ---- */

static int create(const struct snap *s)
{
    struct bf_jwt_keys *keys = (struct bf_jwt_keys *)0x5a;
    int rc = bf_jwt_keys_create(s->bytes, s->w.len, &keys);
    if (rc == 0)
        bf_jwt_keys_destroy(keys);
    else
        cr_expect_eq(keys, (struct bf_jwt_keys *)0x5a, "untouched");
    return rc;
}

static int create_with(enum bf_jwt_alg alg, const char *key, size_t len)
{
    struct snap s = {.w = {.len = 0}};
    snap_key(&s, "k", (uint8_t)alg, key, len);
    return create(&s);
}

static struct keypair other_key(EVP_PKEY *pkey)
{
    struct keypair k = {.pkey = pkey};
    BIO *bio = BIO_new(BIO_s_mem());
    cr_assert_neq(pkey, NULL);
    PEM_write_bio_PUBKEY(bio, pkey);
    k.pem_len = (size_t)BIO_read(bio, k.pem, sizeof(k.pem));
    BIO_free(bio);
    return k;
}

Test(jwt, keys_that_do_not_fit_their_alg)
{
    struct keypair rsa = make_key(BF_JWT_RS256), ec = make_key(BF_JWT_ES256);
    struct keypair ed = make_key(BF_JWT_EDDSA);
    struct keypair p384 = other_key(EVP_EC_gen("P-384"));
    struct keypair k1 = other_key(EVP_EC_gen("secp256k1"));
    struct keypair small = other_key(EVP_RSA_gen(1024));
    cr_expect_eq(create_with(BF_JWT_RS256, rsa.pem, rsa.pem_len), 0);
    cr_expect_eq(create_with(BF_JWT_ES256, rsa.pem, rsa.pem_len), BF_ERR_MALFORMED);
    cr_expect_eq(create_with(BF_JWT_RS256, ec.pem, ec.pem_len), BF_ERR_MALFORMED);
    cr_expect_eq(create_with(BF_JWT_EDDSA, ec.pem, ec.pem_len), BF_ERR_MALFORMED);
    cr_expect_eq(create_with(BF_JWT_ES256, ed.pem, ed.pem_len), BF_ERR_MALFORMED);
    cr_expect_eq(create_with(BF_JWT_ES256, p384.pem, p384.pem_len), BF_ERR_MALFORMED);
    cr_expect_eq(create_with(BF_JWT_ES256, k1.pem, k1.pem_len), BF_ERR_MALFORMED);
    cr_expect_eq(create_with(BF_JWT_RS256, small.pem, small.pem_len), BF_ERR_MALFORMED);
    cr_expect_eq(create_with(BF_JWT_RS256, "nonsense", 8), BF_ERR_MALFORMED);
    cr_expect_eq(create_with(BF_JWT_RS256, "", 0), BF_ERR_MALFORMED);
    cr_expect_eq(create_with(BF_JWT_HS256, "", 0), BF_ERR_MALFORMED);
    cr_expect_eq(create_with(BF_JWT_ALG_COUNT, SECRET, 32), BF_ERR_MALFORMED);
    struct keypair *const all[] = {&rsa, &ec, &ed, &p384, &k1, &small};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free_key(all[i]);
}

Test(jwt, snapshots_of_any_bytes)
{
    struct snap s = {.w = {.len = 0}};
    snap_record(&s, BF_SNAP_LIMITS, "\1\2\3\4", 4); /* another reader's */
    snap_key(&s, "k", BF_JWT_HS256, SECRET, 32);
    snap_record(&s, BF_SNAP_JWT_AUDIENCE, "belfry", 6);
    snap_record(&s, 999, "future", 6);
    size_t whole = s.w.len;
    cr_expect_eq(create(&s), 0);
    unsigned taken = 0;
    for (s.w.len = 0; s.w.len < whole; s.w.len++)
        taken += create(&s) == 0;
    cr_expect_eq(taken, 4, "cut between records only: %u", taken);
    s.w.len = whole;
    snap_record(&s, BF_SNAP_END, "", 0);
    snap_record(&s, BF_SNAP_JWT_KEY, "rubbish behind the end", 22);
    cr_expect_eq(create(&s), 0);
    s.w.len = whole;
    snap_record(&s, BF_SNAP_JWT_KEY, "\0\0\0\1\0x+", 7);
    cr_expect_eq(create(&s), BF_ERR_MALFORMED, "bytes after the key");
}

Test(jwt, too_many_keys)
{
    struct snap s = {.w = {.len = 0}};
    for (unsigned i = 0; i < 64; i++)
        snap_key(&s, "k", BF_JWT_HS256, SECRET, 32);
    cr_expect_eq(create(&s), 0);
    snap_key(&s, "k", BF_JWT_HS256, SECRET, 32);
    cr_expect_eq(create(&s), BF_ERR_MALFORMED);
}

Test(jwt, verdicts_have_words)
{
    for (unsigned i = 0; i < BF_JWT_VERDICT_COUNT; i++)
        cr_expect_gt(strlen(bf_jwt_verdict_text((enum bf_jwt_verdict)i)), 1);
    cr_expect_str_eq(bf_jwt_verdict_text((enum bf_jwt_verdict)99), "unknown");
}
