/*
 * JWT on any bytes: once as they are, once signed (HS256), so that claims are reached; and the same
 * bytes as a snapshot of keys. Nothing but a signed token may ever verify.
 */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tls/jwt.h"

#define NOW UINT64_C(1700000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char secret[] = "0123456789abcdef0123456789abcdef";

static struct bf_jwt_keys *make_keys(void)
{
    uint8_t value[64], snapshot[96];
    struct bf_writer v = {.buf = value, .cap = sizeof(value)};
    struct bf_writer w = {.buf = snapshot, .cap = sizeof(snapshot)};
    struct bf_jwt_keys *keys = NULL;
    bf_put_str16(&v, (struct bf_bytes){0});
    bf_put_u8(&v, BF_JWT_HS256);
    bf_put_str16(&v, BF_BYTES(secret));
    bf_put_u16(&w, BF_SNAP_JWT_KEY);
    bf_put_str32(&w, (struct bf_bytes){.at = (const char *)value, .len = v.len});
    if (bf_jwt_keys_create(snapshot, w.len, &keys) != 0)
        abort();
    return keys;
}

static size_t base64url(const uint8_t *p, size_t len, char *out)
{
    size_t n = (size_t)EVP_EncodeBlock((uint8_t *)out, p, (int)len);
    while (n > 0 && out[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++)
        out[i] = out[i] == '+' ? '-' : out[i] == '/' ? '_' : out[i];
    return n;
}

/* header.payload.signature of |payload| as it is. */
static struct bf_bytes sign(const uint8_t *payload, size_t len)
{
    static char out[2 * BF_JWT_BYTES_MAX];
    static const char header[] = "eyJhbGciOiJIUzI1NiJ9.";
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned mac_len = 0;
    size_t n = sizeof(header) - 1;
    memcpy(out, header, n);
    n += base64url(payload, len, out + n);
    HMAC(EVP_sha256(), secret, sizeof(secret) - 1, (const uint8_t *)out, n, mac, &mac_len);
    out[n++] = '.';
    n += base64url(mac, mac_len, out + n);
    return (struct bf_bytes){.at = out, .len = n};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bf_jwt_keys *keys;
    struct bf_claims claims;
    struct bf_jwt_keys *built = NULL;
    if (!keys)
        keys = make_keys();
    if (size > BF_JWT_PAYLOAD_BYTES_MAX)
        return 0;
    if (bf_jwt_verify(keys, (struct bf_bytes){(const char *)data, size}, NOW, &claims) == BF_JWT_OK)
        abort(); /* the fuzzer cannot know the secret */
    if (bf_jwt_verify(keys, sign(data, size), NOW, &claims) == BF_JWT_OK &&
        (claims.user_len == 0 || claims.user_len > sizeof(claims.user) ||
         claims.topic_count > BF_JWT_TOPICS_MAX || claims.expires_s + BF_JWT_LEEWAY_S <= NOW))
        abort();
    if (bf_jwt_keys_create(data, size, &built) == 0)
        bf_jwt_keys_destroy(built);
    return 0;
}
