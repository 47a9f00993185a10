/* User tokens: see pf_jwt.h. */
#include "pf_jwt.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

#include "pf_report.h"

/* base64url without padding, in place of what EVP_EncodeBlock wrote. */
static size_t base64url(const void *in, size_t len, char *out)
{
    size_t n = (size_t)EVP_EncodeBlock((uint8_t *)out, in, (int)len);
    while (n > 0 && out[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++)
        out[i] = out[i] == '+' ? '-' : out[i] == '/' ? '_' : out[i];
    return n;
}

static size_t input(const char *header, const char *user, uint64_t expires_s, char *out)
{
    char payload[256];
    int n =
        snprintf(payload, sizeof(payload), "{\"sub\":\"%s\",\"exp\":%" PRIu64 "}", user, expires_s);
    size_t len = base64url(header, strlen(header), out);
    out[len++] = '.';
    return len + base64url(payload, (size_t)n, out + len);
}

size_t pf_jwt_mint(const char *secret, size_t secret_len, const char *user, uint64_t expires_s,
                   char out[PF_JWT_BYTES_MAX])
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned mac_len = 0;
    size_t len = input("{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"dev\"}", user, expires_s, out);
    HMAC(EVP_sha256(), secret, (int)secret_len, (const uint8_t *)out, len, mac, &mac_len);
    out[len++] = '.';
    len += base64url(mac, mac_len, out + len);
    return len;
}

/* r and s of 32 bytes each instead of DER (RFC 7518 section 3.4). */
static void signature_raw(const uint8_t *der, size_t der_len, uint8_t raw[64])
{
    ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &der, (long)der_len);
    const BIGNUM *r, *s;
    if (!signature)
        pf_die("no signature");
    ECDSA_SIG_get0(signature, &r, &s);
    BN_bn2binpad(r, raw, 32);
    BN_bn2binpad(s, raw + 32, 32);
    ECDSA_SIG_free(signature);
}

/* Appends the signature over the |len| bytes of |out|. */
static size_t sign_es256(void *key, char *out, size_t len)
{
    uint8_t der[128], raw[64];
    size_t der_len = sizeof(der);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!context || EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) != 1 ||
        EVP_DigestSign(context, der, &der_len, (const uint8_t *)out, len) != 1)
        pf_die("cannot sign");
    EVP_MD_CTX_free(context);
    signature_raw(der, der_len, raw);
    out[len++] = '.';
    return len + base64url(raw, sizeof(raw), out + len);
}

size_t pf_jwt_mint_es256(void *key, const char *user, uint64_t expires_s,
                         char out[PF_JWT_BYTES_MAX])
{
    return sign_es256(
        key, out,
        input("{\"alg\":\"ES256\",\"typ\":\"JWT\",\"kid\":\"es\"}", user, expires_s, out));
}

size_t pf_jwt_mint_apns(void *key, const char *key_id, const char *team, uint64_t now_s,
                        char out[PF_JWT_BYTES_MAX])
{
    char text[128];
    int n = snprintf(text, sizeof(text), "{\"alg\":\"ES256\",\"kid\":\"%s\"}", key_id);
    size_t len = base64url(text, (size_t)n, out);
    out[len++] = '.';
    n = snprintf(text, sizeof(text), "{\"iss\":\"%s\",\"iat\":%" PRIu64 "}", team, now_s);
    len += base64url(text, (size_t)n, out + len);
    return sign_es256(key, out, len);
}

void *pf_jwt_key_make(const char *public_file)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    FILE *file = fopen(public_file, "we");
    if (!key || !file || !PEM_write_PUBKEY(file, key))
        pf_die("cannot write %s", public_file);
    fclose(file);
    return key;
}
