/* Signed tokens; see sign.h. */
#include "crypto/sign.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/base64url.h"
#include "belfry/base/err.h"
#include "belfry/jwt/jwt.h"
#include "crypto/pem.h"

#define P256_BYTES 32

struct bf_sign_key {
    EVP_PKEY *pkey;
    enum bf_jwt_alg alg;
};

static bool is_p256(const EVP_PKEY *pkey)
{
    char group[64] = "";
    return EVP_PKEY_is_a(pkey, "EC") &&
           EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) == 1 &&
           strcmp(group, "prime256v1") == 0;
}

int bf_sign_key_read(struct bf_bytes pem, enum bf_jwt_alg alg, struct bf_sign_key **ret)
{
    if (alg != BF_JWT_ES256 && alg != BF_JWT_RS256)
        return BF_ERR_UNSUPPORTED;
    EVP_PKEY *pkey = bf_pem_private_key(pem);
    bool fits = pkey && (alg == BF_JWT_ES256 ? is_p256(pkey)
                                             : EVP_PKEY_is_a(pkey, "RSA") &&
                                                   EVP_PKEY_get_bits(pkey) >= BF_JWT_RSA_BITS_MIN);
    struct bf_sign_key *key = fits ? malloc(sizeof(*key)) : NULL;
    if (!key) {
        EVP_PKEY_free(pkey);
        return fits ? -ENOMEM : BF_ERR_MALFORMED;
    }
    *key = (struct bf_sign_key){.pkey = pkey, .alg = alg};
    *ret = key;
    return 0;
}

void bf_sign_key_free(struct bf_sign_key *key)
{
    if (!key)
        return;
    EVP_PKEY_free(key->pkey);
    free(key);
}

int bf_sign_key_public(const struct bf_sign_key *key, uint8_t out[BF_P256_PUBLIC_BYTES])
{
    size_t len = 0;
    /* a PEM may name the compressed form; VAPID and browsers want the other */
    EVP_PKEY_set_utf8_string_param(key->pkey, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                   "uncompressed");
    if (EVP_PKEY_get_octet_string_param(key->pkey, OSSL_PKEY_PARAM_PUB_KEY, out,
                                        BF_P256_PUBLIC_BYTES, &len) != 1 ||
        len != BF_P256_PUBLIC_BYTES)
        return BF_ERR_MALFORMED;
    return 0;
}

/* DER of OpenSSL to the 64 bytes of RFC 7518 section 3.4. */
static bool es256_raw(const uint8_t *der, size_t len, uint8_t out[2 * P256_BYTES])
{
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)len);
    bool ok = sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, P256_BYTES) == P256_BYTES &&
              BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + P256_BYTES, P256_BYTES) == P256_BYTES;
    ECDSA_SIG_free(sig);
    return ok;
}

/* malloc'ed signature of |text|, or NULL. */
static uint8_t *sign(const struct bf_sign_key *key, struct bf_bytes text, size_t *ret_len)
{
    size_t len = (size_t)EVP_PKEY_get_size(key->pkey);
    uint8_t *sig = malloc(len);
    uint8_t raw[2 * P256_BYTES];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = sig && ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key->pkey) == 1 &&
              EVP_DigestSign(ctx, sig, &len, (const uint8_t *)text.at, text.len) == 1;
    EVP_MD_CTX_free(ctx);
    if (ok && key->alg == BF_JWT_ES256) {
        ok = es256_raw(sig, len, raw);
        len = sizeof(raw); /* a DER signature has 70 to 72 */
        if (ok)
            memcpy(sig, raw, len);
    }
    if (!ok) {
        free(sig);
        ERR_clear_error();
        return NULL;
    }
    *ret_len = len;
    return sig;
}

char *bf_sign_jwt(const struct bf_sign_key *key, struct bf_bytes header_json,
                  struct bf_bytes payload_json)
{
    size_t sig_max = (size_t)EVP_PKEY_get_size(key->pkey), sig_len = 0;
    size_t cap = (header_json.len + payload_json.len + sig_max) * 4 / 3 + 16;
    char *jwt = malloc(cap);
    if (!jwt)
        return NULL;
    size_t len = bf_base64url_encode((const uint8_t *)header_json.at, header_json.len, jwt);
    jwt[len++] = '.';
    len += bf_base64url_encode((const uint8_t *)payload_json.at, payload_json.len, jwt + len);
    uint8_t *sig = sign(key, (struct bf_bytes){jwt, len}, &sig_len);
    if (!sig) {
        free(jwt);
        return NULL;
    }
    jwt[len++] = '.';
    len += bf_base64url_encode(sig, sig_len, jwt + len);
    jwt[len] = '\0';
    free(sig);
    return jwt;
}
