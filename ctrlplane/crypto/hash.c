/* See hash.h. */
#include "crypto/hash.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <sys/random.h>

#include "belfry/base/bug.h"

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

void bf_hmac_sha256(struct bf_bytes key, struct bf_bytes text, uint8_t out[BF_SHA256_BYTES])
{
    unsigned len = 0;
    BF_BUG_ON(
        !HMAC(EVP_sha256(), key.at, (int)key.len, (const uint8_t *)text.at, text.len, out, &len));
    BF_BUG_ON(len != BF_SHA256_BYTES);
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
