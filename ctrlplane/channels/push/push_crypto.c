/*
 * See push_crypto.h. HKDF is written out (RFC 5869): each output here is one block, so extract and
 * expand are an HMAC each.
 */
#include "channels/push/push_crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/crypto.h"
#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/id.h"

#define P256_BYTES    32u
#define RSA_BITS_MIN  2048
#define GCM_TAG_BYTES 16u
#define GCM_IV_BYTES  12u
#define MAC_BYTES     32u
/* RFC 8188 section 2: the delimiter of the last record. */
#define LAST_RECORD   2u
#define VAULT_VERSION 1u

static void hmac(const uint8_t *key, size_t key_len, struct bf_bytes text, uint8_t mac[MAC_BYTES])
{
    unsigned len = 0;
    BF_BUG_ON(
        !HMAC(EVP_sha256(), key, (int)key_len, (const uint8_t *)text.at, text.len, mac, &len));
    BF_BUG_ON(len != MAC_BYTES);
}

/* ---- Web Push ------------------------------------------------------------------------------- */

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

/* ---- signed tokens -------------------------------------------------------------------------- */

struct bf_sign_key {
    EVP_PKEY *pkey;
    enum bf_jwt_alg alg;
};

/* A key with a passphrase is refused, not asked for: there is nobody at the keyboard. */
static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf, (void)size, (void)writing, (void)arg;
    return -1;
}

static EVP_PKEY *private_key_read(struct bf_bytes pem)
{
    BIO *bio = BIO_new_mem_buf(pem.at, (int)pem.len);
    EVP_PKEY *pkey = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    return pkey;
}

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
    EVP_PKEY *pkey = private_key_read(pem);
    bool fits = pkey && (alg == BF_JWT_ES256 ? is_p256(pkey)
                                             : EVP_PKEY_is_a(pkey, "RSA") &&
                                                   EVP_PKEY_get_bits(pkey) >= RSA_BITS_MIN);
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

int bf_sign_key_public(const struct bf_sign_key *key, uint8_t out[BF_WEBPUSH_PUBLIC_BYTES])
{
    size_t len = 0;
    /* a PEM may name the compressed form; VAPID and browsers want the other */
    EVP_PKEY_set_utf8_string_param(key->pkey, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                   "uncompressed");
    if (EVP_PKEY_get_octet_string_param(key->pkey, OSSL_PKEY_PARAM_PUB_KEY, out,
                                        BF_WEBPUSH_PUBLIC_BYTES, &len) != 1 ||
        len != BF_WEBPUSH_PUBLIC_BYTES)
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

bool bf_is_certificate_pair(struct bf_bytes cert, struct bf_bytes key)
{
    BIO *bio = BIO_new_mem_buf(cert.at, (int)cert.len);
    X509 *x509 = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
    EVP_PKEY *pkey = private_key_read(key);
    bool is_pair = x509 && pkey && X509_check_private_key(x509, pkey) == 1;
    X509_free(x509);
    EVP_PKEY_free(pkey);
    BIO_free(bio);
    ERR_clear_error();
    return is_pair;
}

/* ---- vault ---------------------------------------------------------------------------------- */

void bf_vault_init(struct bf_vault *vault, const uint8_t key[BF_VAULT_KEY_BYTES])
{
    hmac(key, BF_VAULT_KEY_BYTES, BF_BYTES("belfry device token seal 1"), vault->seal_key);
    hmac(key, BF_VAULT_KEY_BYTES, BF_BYTES("belfry device token index 1"), vault->hash_key);
}

/* Under another name first: a kill between making and writing leaves no key file that is empty. */
static int vault_write(const char *path, const char *text, size_t len)
{
    char fresh[600];
    if (snprintf(fresh, sizeof(fresh), "%s.new", path) >= (int)sizeof(fresh))
        return -ENAMETOOLONG;
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    /* synced: rows sealed with a key that a power cut takes back could never be read again */
    bool ok = write(fd, text, len) == (ssize_t)len && fsync(fd) == 0;
    int rc = ok ? 0 : errno ? -errno : -EIO;
    close(fd);
    if (rc == 0 && rename(fresh, path) != 0)
        rc = -errno;
    return rc;
}

static int vault_make(const char *path, char *err, size_t err_len)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t key[BF_VAULT_KEY_BYTES];
    char text[2 * BF_VAULT_KEY_BYTES + 1];
    bf_random(key, sizeof(key));
    for (size_t i = 0; i < sizeof(key); i++) {
        text[2 * i] = hex[key[i] >> 4];
        text[2 * i + 1] = hex[key[i] & 15];
    }
    text[sizeof(text) - 1] = '\n';
    int rc = vault_write(path, text, sizeof(text));
    OPENSSL_cleanse(key, sizeof(key));
    OPENSSL_cleanse(text, sizeof(text));
    if (rc != 0)
        snprintf(err, err_len, "cannot make the device key file %s: %s", path, strerror(-rc));
    return rc;
}

static int vault_parse(const char *text, size_t len, uint8_t key[BF_VAULT_KEY_BYTES])
{
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    if (len != 2 * BF_VAULT_KEY_BYTES)
        return BF_ERR_MALFORMED;
    for (size_t i = 0; i < BF_VAULT_KEY_BYTES; i++) {
        int hi = bf_hex_digit(text[2 * i]), lo = bf_hex_digit(text[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return BF_ERR_MALFORMED;
        key[i] = (uint8_t)(hi << 4 | lo);
    }
    return 0;
}

int bf_vault_open(const char *path, struct bf_vault *ret, char *err, size_t err_len)
{
    char text[2 * BF_VAULT_KEY_BYTES + 4];
    uint8_t key[BF_VAULT_KEY_BYTES];
    struct stat st;
    int rc = access(path, F_OK) == 0 ? 0 : vault_make(path, err, err_len);
    if (rc != 0)
        return rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (len < 0 || fstat(fd, &st) != 0) {
        rc = -errno;
        snprintf(err, err_len, "cannot read the device key file %s: %s", path, strerror(-rc));
    } else if (st.st_mode & (S_IRWXG | S_IRWXO)) {
        rc = BF_ERR_DENIED;
        snprintf(err, err_len, "the device key file %s can be read by others: chmod 600", path);
    } else if (vault_parse(text, (size_t)len, key) != 0) {
        rc = BF_ERR_MALFORMED;
        snprintf(err, err_len, "the device key file %s does not hold 64 hex digits", path);
    } else {
        bf_vault_init(ret, key);
    }
    if (fd >= 0)
        close(fd);
    OPENSSL_cleanse(text, sizeof(text));
    OPENSSL_cleanse(key, sizeof(key));
    return rc;
}

int bf_vault_seal(const struct bf_vault *vault, struct bf_bytes bound, struct bf_bytes plain,
                  uint8_t *out)
{
    int n = 0, end = 0;
    uint8_t *nonce = out + 1, *text = out + 1 + GCM_IV_BYTES;
    out[0] = VAULT_VERSION;
    bf_random(nonce, GCM_IV_BYTES);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok = ctx &&
              EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, vault->seal_key, nonce) == 1 &&
              EVP_EncryptUpdate(ctx, NULL, &n, (const uint8_t *)bound.at, (int)bound.len) == 1 &&
              EVP_EncryptUpdate(ctx, text, &n, (const uint8_t *)plain.at, (int)plain.len) == 1 &&
              EVP_EncryptFinal_ex(ctx, text + n, &end) == 1 &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, GCM_TAG_BYTES, text + plain.len) == 1;
    EVP_CIPHER_CTX_free(ctx);
    return ok ? 0 : BF_ERR_CORRUPT;
}

int bf_vault_unseal(const struct bf_vault *vault, struct bf_bytes bound, struct bf_bytes sealed,
                    uint8_t *out, size_t *ret_len)
{
    const uint8_t *at = (const uint8_t *)sealed.at;
    uint8_t tag[GCM_TAG_BYTES];
    int n = 0, end = 0;
    if (sealed.len < BF_VAULT_EXTRA_BYTES || at[0] != VAULT_VERSION)
        return BF_ERR_CORRUPT;
    size_t len = sealed.len - BF_VAULT_EXTRA_BYTES;
    const uint8_t *text = at + 1 + GCM_IV_BYTES;
    memcpy(tag, text + len, sizeof(tag));
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok = ctx &&
              EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, vault->seal_key, at + 1) == 1 &&
              EVP_DecryptUpdate(ctx, NULL, &n, (const uint8_t *)bound.at, (int)bound.len) == 1 &&
              EVP_DecryptUpdate(ctx, out, &n, text, (int)len) == 1 &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, sizeof(tag), tag) == 1 &&
              EVP_DecryptFinal_ex(ctx, out + n, &end) == 1;
    EVP_CIPHER_CTX_free(ctx);
    ERR_clear_error();
    if (!ok)
        return BF_ERR_CORRUPT;
    *ret_len = len;
    return 0;
}

void bf_vault_hash(const struct bf_vault *vault, struct bf_bytes text,
                   uint8_t out[BF_VAULT_HASH_BYTES])
{
    uint8_t mac[MAC_BYTES];
    hmac(vault->hash_key, BF_VAULT_KEY_BYTES, text, mac);
    memcpy(out, mac, BF_VAULT_HASH_BYTES);
}
