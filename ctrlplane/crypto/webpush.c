/*
 * Web Push encryption; see webpush.h. HKDF is written out (RFC 5869): each output here is one
 * block, so extract and expand are an HMAC each.
 */
#include "crypto/webpush.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <string.h>

#include "belfry/base/base64url.h"
#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "crypto/hash.h"

#define P256_BYTES    32u
#define GCM_TAG_BYTES 16u
#define MAC_BYTES     BF_SHA256_BYTES
/* RFC 8188 section 2: the delimiter of the last record. */
#define LAST_RECORD 2u

static void hmac(const uint8_t *key, size_t key_len, struct bf_bytes text, uint8_t mac[MAC_BYTES])
{
    bf_hmac_sha256((struct bf_bytes){(const char *)key, key_len}, text, mac);
}

/* A P-256 key of its raw parts; |private_key| NULL: a public one. NULL: not on the curve. */
static EVP_PKEY *p256_key(const uint8_t *public_key, const uint8_t *private_key)
{
    EVP_PKEY *pkey = NULL;
    OSSL_PARAM *params = NULL;
    BIGNUM *secret = private_key ? BN_bin2bn(private_key, P256_BYTES, NULL) : NULL;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    bool ok = build && ctx &&
              OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) &&
              OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, public_key,
                                               BF_WEBPUSH_PUBLIC_BYTES) &&
              (!private_key ||
               (secret && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_PRIV_KEY, secret)));
    if (ok)
        params = OSSL_PARAM_BLD_to_param(build);
    if (params && EVP_PKEY_fromdata_init(ctx) == 1)
        EVP_PKEY_fromdata(ctx, &pkey, private_key ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY, params);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    EVP_PKEY_CTX_free(ctx);
    BN_clear_free(secret);
    ERR_clear_error();
    return pkey;
}

int bf_webpush_keys_read(struct bf_bytes p256dh, struct bf_bytes auth,
                         struct bf_webpush_keys *ret_keys)
{
    struct bf_webpush_keys keys;
    if (bf_base64url_decode(p256dh, keys.p256dh, sizeof(keys.p256dh)) !=
            (long)sizeof(keys.p256dh) ||
        bf_base64url_decode(auth, keys.auth, sizeof(keys.auth)) != (long)sizeof(keys.auth) ||
        keys.p256dh[0] != 4)
        return BF_ERR_MALFORMED;
    EVP_PKEY *pkey = p256_key(keys.p256dh, NULL);
    if (!pkey)
        return BF_ERR_MALFORMED;
    EVP_PKEY_free(pkey);
    *ret_keys = keys;
    return 0;
}

static bool ecdh(EVP_PKEY *own, EVP_PKEY *peer, uint8_t out[P256_BYTES])
{
    size_t len = P256_BYTES;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(own, NULL);
    bool ok = ctx && EVP_PKEY_derive_init(ctx) == 1 && EVP_PKEY_derive_set_peer(ctx, peer) == 1 &&
              EVP_PKEY_derive(ctx, out, &len) == 1 && len == P256_BYTES;
    EVP_PKEY_CTX_free(ctx);
    return ok;
}

/* HKDF-Expand to one block: HMAC(prk, info || 0x01). |info| has its terminating zero in it. */
static void expand(const uint8_t prk[MAC_BYTES], struct bf_bytes info, uint8_t out[MAC_BYTES])
{
    uint8_t text[192];
    struct bf_writer w = {.buf = text, .cap = sizeof(text)};
    bf_put_bytes(&w, info);
    bf_put_u8(&w, 1);
    BF_BUG_ON(w.failed);
    hmac(prk, MAC_BYTES, (struct bf_bytes){(char *)text, w.len}, out);
}

/* RFC 8291 section 3.4: content encryption key and nonce. */
static void derive(const struct bf_webpush_keys *keys, const uint8_t *own_public,
                   const uint8_t shared[P256_BYTES], const uint8_t *salt, uint8_t cek[MAC_BYTES],
                   uint8_t nonce[MAC_BYTES])
{
    uint8_t info[160], prk[MAC_BYTES], ikm[MAC_BYTES];
    struct bf_writer w = {.buf = info, .cap = sizeof(info)};
    bf_put_raw(&w, "WebPush: info", 14); /* with its zero */
    bf_put_raw(&w, keys->p256dh, BF_WEBPUSH_PUBLIC_BYTES);
    bf_put_raw(&w, own_public, BF_WEBPUSH_PUBLIC_BYTES);
    hmac(keys->auth, sizeof(keys->auth), (struct bf_bytes){(const char *)shared, P256_BYTES}, prk);
    expand(prk, (struct bf_bytes){(char *)info, w.len}, ikm);
    hmac(salt, BF_WEBPUSH_SALT_BYTES, (struct bf_bytes){(char *)ikm, sizeof(ikm)}, prk);
    expand(prk, (struct bf_bytes){"Content-Encoding: aes128gcm", 28}, cek);
    expand(prk, (struct bf_bytes){"Content-Encoding: nonce", 24}, nonce);
    OPENSSL_cleanse(prk, sizeof(prk));
    OPENSSL_cleanse(ikm, sizeof(ikm));
}

/* plain || 0x02, encrypted, and the tag. */
static bool seal_record(const uint8_t *cek, const uint8_t *nonce, struct bf_bytes plain,
                        uint8_t *out)
{
    static const uint8_t last = LAST_RECORD;
    int n = 0, more = 0, end = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok = ctx && EVP_EncryptInit_ex(ctx, EVP_aes_128_gcm(), NULL, cek, nonce) == 1 &&
              EVP_EncryptUpdate(ctx, out, &n, (const uint8_t *)plain.at, (int)plain.len) == 1 &&
              EVP_EncryptUpdate(ctx, out + n, &more, &last, 1) == 1 &&
              EVP_EncryptFinal_ex(ctx, out + n + more, &end) == 1 &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, GCM_TAG_BYTES, out + n + more) == 1;
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

static EVP_PKEY *fresh_key(const struct bf_webpush_fresh *fresh, uint8_t *ret_public,
                           uint8_t *ret_salt)
{
    size_t len = 0;
    if (fresh) {
        memcpy(ret_public, fresh->public_key, BF_WEBPUSH_PUBLIC_BYTES);
        memcpy(ret_salt, fresh->salt, BF_WEBPUSH_SALT_BYTES);
        return p256_key(fresh->public_key, fresh->private_key);
    }
    bf_random(ret_salt, BF_WEBPUSH_SALT_BYTES);
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    if (pkey && (EVP_PKEY_get_octet_string_param(pkey, OSSL_PKEY_PARAM_PUB_KEY, ret_public,
                                                 BF_WEBPUSH_PUBLIC_BYTES, &len) != 1 ||
                 len != BF_WEBPUSH_PUBLIC_BYTES)) {
        EVP_PKEY_free(pkey);
        pkey = NULL;
    }
    return pkey;
}

int bf_webpush_seal(const struct bf_webpush_keys *keys, struct bf_bytes plain,
                    const struct bf_webpush_fresh *fresh, uint8_t *out)
{
    uint8_t own_public[BF_WEBPUSH_PUBLIC_BYTES], salt[BF_WEBPUSH_SALT_BYTES];
    uint8_t shared[P256_BYTES], cek[MAC_BYTES], nonce[MAC_BYTES];
    if (plain.len > BF_WEBPUSH_PLAIN_BYTES_MAX)
        return BF_ERR_TOO_LARGE;
    EVP_PKEY *own = fresh_key(fresh, own_public, salt);
    EVP_PKEY *peer = p256_key(keys->p256dh, NULL);
    bool ok = own && peer && ecdh(own, peer, shared);
    if (ok) {
        static const uint8_t record_size[4] = {
            BF_WEBPUSH_RECORD_BYTES >> 24, BF_WEBPUSH_RECORD_BYTES >> 16 & 255,
            BF_WEBPUSH_RECORD_BYTES >> 8 & 255, BF_WEBPUSH_RECORD_BYTES & 255};
        struct bf_writer w = {.buf = out, .cap = BF_WEBPUSH_HEADER_BYTES};
        derive(keys, own_public, shared, salt, cek, nonce);
        bf_put_raw(&w, salt, sizeof(salt));
        bf_put_raw(&w, record_size, sizeof(record_size));
        bf_put_u8(&w, BF_WEBPUSH_PUBLIC_BYTES);
        bf_put_raw(&w, own_public, sizeof(own_public));
        ok = seal_record(cek, nonce, plain, out + BF_WEBPUSH_HEADER_BYTES);
    }
    EVP_PKEY_free(own);
    EVP_PKEY_free(peer);
    OPENSSL_cleanse(shared, sizeof(shared));
    OPENSSL_cleanse(cek, sizeof(cek));
    ERR_clear_error();
    return ok ? 0 : BF_ERR_MALFORMED;
}
