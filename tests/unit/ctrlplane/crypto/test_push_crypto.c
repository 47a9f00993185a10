/*
 * RFC 8291's example to the byte, JWTs that OpenSSL verifies, and the vault: sealed rows open with
 * their key in their place only.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "belfry/base/base64url.h"
#include "belfry/base/err.h"
#include "crypto/sign.h"
#include "crypto/vault.h"
#include "crypto/webpush.h"
#include "tmp_dir.h"

static struct bf_bytes text(const char *s)
{
    return (struct bf_bytes){s, strlen(s)};
}

static const char ua_public[] =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
static const char auth[] = "BTBZMqHH6r4Tts7J_aSIgg";

/* RFC 8291 section 5. */
Test(push_crypto, rfc8291_example)
{
    struct bf_webpush_keys keys;
    struct bf_webpush_fresh fresh;
    uint8_t body[BF_WEBPUSH_BODY_BYTES(64)], wanted[256];
    const char *plain = "When I grow up, I want to be a watermelon";
    long len = bf_base64url_decode(
        text("DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_"
             "c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC"
             "8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_"
             "Qulcy4a-fN"),
        wanted, sizeof(wanted));
    cr_assert_eq(bf_webpush_keys_read(text(ua_public), text(auth), &keys), 0);
    cr_assert_eq(bf_base64url_decode(text("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"),
                                     fresh.private_key, 32),
                 32);
    cr_assert_eq(bf_base64url_decode(
                     text("BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz"
                          "AC8wEqKK6PBru3jl7A8"),
                     fresh.public_key, 65),
                 65);
    cr_assert_eq(bf_base64url_decode(text("DGv6ra1nlYgDCS1FRnbzlw"), fresh.salt, 16), 16);
    cr_assert_eq(bf_webpush_seal(&keys, text(plain), &fresh, body), 0);
    cr_assert_eq((size_t)len, BF_WEBPUSH_BODY_BYTES(strlen(plain)));
    cr_assert_arr_eq(body, wanted, (size_t)len);
}

Test(push_crypto, webpush_limits_and_bad_keys)
{
    struct bf_webpush_keys keys;
    static char plain[BF_WEBPUSH_PLAIN_BYTES_MAX + 1];
    static uint8_t body[4096], again[4096];
    cr_assert_eq(BF_WEBPUSH_PLAIN_BYTES_MAX, 3993);
    cr_assert_eq(bf_webpush_keys_read(text(ua_public), text(auth), &keys), 0);
    cr_assert_eq(bf_webpush_seal(&keys, (struct bf_bytes){plain, 3993}, NULL, body), 0);
    cr_assert_eq(bf_webpush_seal(&keys, (struct bf_bytes){plain, 3993}, NULL, again), 0);
    cr_assert_neq(memcmp(body, again, 16), 0, "a fresh salt each");
    cr_assert_neq(memcmp(body + 21, again + 21, 65), 0, "a fresh key each");
    cr_assert_eq(bf_webpush_seal(&keys, (struct bf_bytes){plain, 3994}, NULL, body),
                 BF_ERR_TOO_LARGE);
    cr_assert_eq(bf_webpush_keys_read(text(auth), text(auth), &keys), BF_ERR_MALFORMED);
    cr_assert_eq(bf_webpush_keys_read(text(ua_public), text(ua_public), &keys), BF_ERR_MALFORMED);
    cr_assert_eq(bf_webpush_keys_read(
                     text("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7V"
                          "d8pZGH6SRpkNtoIAiw8"),
                     text(auth), &keys),
                 BF_ERR_MALFORMED, "not on the curve");
}

/* ---- tokens ---- */

static char *pem_of(EVP_PKEY *pkey)
{
    char *at = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    cr_assert_eq(PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL), 1);
    long len = BIO_get_mem_data(bio, &at);
    char *pem = strndup(at, (size_t)len);
    BIO_free(bio);
    return pem;
}

/* Verifies the last part over the two before; R || S becomes DER again for ES256. */
static bool verifies(EVP_PKEY *pkey, const char *jwt, bool is_es256)
{
    uint8_t sig[600], der[80], *to = der;
    const char *dot = strrchr(jwt, '.');
    long len = bf_base64url_decode(text(dot + 1), sig, sizeof(sig));
    cr_assert_gt(len, 0);
    const uint8_t *use = sig;
    if (is_es256) {
        cr_assert_eq(len, 64);
        ECDSA_SIG *parts = ECDSA_SIG_new();
        ECDSA_SIG_set0(parts, BN_bin2bn(sig, 32, NULL), BN_bin2bn(sig + 32, 32, NULL));
        len = i2d_ECDSA_SIG(parts, &to);
        use = der;
        ECDSA_SIG_free(parts);
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok =
        EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, pkey) == 1 &&
        EVP_DigestVerify(ctx, use, (size_t)len, (const uint8_t *)jwt, (size_t)(dot - jwt)) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

Test(push_crypto, es256_jwt)
{
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    char *pem = pem_of(pkey);
    struct bf_sign_key *key = NULL;
    uint8_t point[65];
    cr_assert_eq(bf_sign_key_read(text(pem), BF_JWT_ES256, &key), 0);
    for (int i = 0; i < 200; i++) { /* short R or S come once in 128 */
        char *jwt = bf_sign_jwt(key, text("{\"alg\":\"ES256\"}"), text("{\"iss\":\"T\"}"));
        cr_assert_not_null(jwt);
        cr_assert_eq(strncmp(jwt, "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJUIn0.", 37), 0, "%s", jwt);
        cr_assert(verifies(pkey, jwt, true));
        free(jwt);
    }
    cr_assert_eq(bf_sign_key_public(key, point), 0);
    cr_assert_eq(point[0], 4);
    bf_sign_key_free(key);
    key = NULL;
    cr_assert_eq(bf_sign_key_read(text(pem), BF_JWT_RS256, &key), BF_ERR_MALFORMED);
    cr_assert_eq(
        bf_sign_key_read(text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
                         BF_JWT_ES256, &key),
        BF_ERR_MALFORMED);
    cr_assert_eq(bf_sign_key_read(text(pem), BF_JWT_HS256, &key), BF_ERR_UNSUPPORTED);
    cr_assert_null(key);
    free(pem);
    EVP_PKEY_free(pkey);
}

Test(push_crypto, rs256_jwt)
{
    EVP_PKEY *pkey = EVP_RSA_gen(2048), *small = EVP_RSA_gen(1024);
    char *pem = pem_of(pkey), *small_pem = pem_of(small);
    struct bf_sign_key *key = NULL;
    cr_assert_eq(bf_sign_key_read(text(pem), BF_JWT_RS256, &key), 0);
    char *jwt = bf_sign_jwt(key, text("{\"alg\":\"RS256\"}"), text("{}"));
    cr_assert(verifies(pkey, jwt, false));
    jwt[5] ^= 1;
    cr_assert(!verifies(pkey, jwt, false));
    cr_assert_eq(bf_sign_key_read(text(small_pem), BF_JWT_RS256, &key), BF_ERR_MALFORMED);
    bf_sign_key_free(key);
    free(jwt);
    free(pem);
    free(small_pem);
    EVP_PKEY_free(pkey);
    EVP_PKEY_free(small);
}

/* ---- vault ---- */

Test(push_crypto, vault_seals)
{
    struct bf_vault vault, other;
    uint8_t sealed[64], again[64], plain[64];
    size_t len;
    bf_vault_init(&vault, (const uint8_t[32]){1});
    bf_vault_init(&other, (const uint8_t[32]){2});
    cr_assert_eq(bf_vault_seal(&vault, text("ann/1"), text("token"), sealed), 0);
    cr_assert_eq(bf_vault_seal(&vault, text("ann/1"), text("token"), again), 0);
    size_t n = 5 + BF_VAULT_EXTRA_BYTES;
    cr_assert_neq(memcmp(sealed, again, n), 0);
    cr_assert_null(memmem(sealed, n, "token", 5));
    struct bf_bytes row = {(char *)sealed, n};
    cr_assert_eq(bf_vault_unseal(&vault, text("ann/1"), row, plain, &len), 0);
    cr_assert_eq(len, 5);
    cr_assert_arr_eq(plain, "token", 5);
    cr_assert_eq(bf_vault_unseal(&vault, text("bob/1"), row, plain, &len), BF_ERR_CORRUPT);
    cr_assert_eq(bf_vault_unseal(&other, text("ann/1"), row, plain, &len), BF_ERR_CORRUPT);
    for (size_t i = 0; i < n; i++) {
        sealed[i] ^= 1;
        cr_assert_eq(bf_vault_unseal(&vault, text("ann/1"), row, plain, &len), BF_ERR_CORRUPT,
                     "%zu", i);
        sealed[i] ^= 1;
        cr_assert_eq(bf_vault_unseal(&vault, text("ann/1"), (struct bf_bytes){(char *)sealed, i},
                                     plain, &len),
                     BF_ERR_CORRUPT);
    }
    uint8_t a[16], b[16], c[16];
    bf_vault_hash(&vault, text("token"), a);
    bf_vault_hash(&vault, text("token"), b);
    bf_vault_hash(&other, text("token"), c);
    cr_assert_arr_eq(a, b, 16);
    cr_assert_neq(memcmp(a, c, 16), 0);
}

Test(push_crypto, vault_key_file)
{
    char dir[200], path[260], err[256] = "";
    struct bf_vault first, second;
    struct stat st;
    tmp_dir_make(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/device.key", dir);
    cr_assert_eq(bf_vault_open(path, &first, err, sizeof(err)), 0, "%s", err);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    cr_assert_eq(st.st_size, 65);
    cr_assert_eq(bf_vault_open(path, &second, err, sizeof(err)), 0);
    cr_assert_arr_eq(&first, &second, sizeof(first));
    cr_assert_eq(chmod(path, 0640), 0);
    cr_assert_eq(bf_vault_open(path, &second, err, sizeof(err)), BF_ERR_DENIED);
    cr_assert(strstr(err, "chmod 600"));
    cr_assert_eq(chmod(path, 0600), 0);
    cr_assert_eq(truncate(path, 20), 0);
    cr_assert_eq(bf_vault_open(path, &second, err, sizeof(err)), BF_ERR_MALFORMED);
    snprintf(path, sizeof(path), "%s/none/device.key", dir);
    cr_assert_eq(bf_vault_open(path, &second, err, sizeof(err)), -ENOENT);
    tmp_dir_remove(dir);
}
