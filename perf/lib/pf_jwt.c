/* HS256 user tokens: see pf_jwt.h. */
#include "pf_jwt.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

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

size_t pf_jwt_mint(const char *secret, size_t secret_len, const char *user, uint64_t expires_s,
                   char out[PF_JWT_BYTES_MAX])
{
    static const char header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"dev\"}";
    char payload[256];
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned mac_len = 0;
    int n =
        snprintf(payload, sizeof(payload), "{\"sub\":\"%s\",\"exp\":%" PRIu64 "}", user, expires_s);
    size_t len = base64url(header, sizeof(header) - 1, out);
    out[len++] = '.';
    len += base64url(payload, (size_t)n, out + len);
    HMAC(EVP_sha256(), secret, (int)secret_len, (const uint8_t *)out, len, mac, &mac_len);
    out[len++] = '.';
    len += base64url(mac, mac_len, out + len);
    return len;
}
