/* See tls_record.h. */
#include "tls/tls_record.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <string.h>

#include "belfry/base/err.h"

/* In every header of TLS 1.3, for the sake of middleboxes. */
#define LEGACY_VERSION 0x0303u

static const struct suite {
    const char *cipher;
    const char *text;
    const EVP_MD *(*digest)(void);
    uint16_t number;
    uint8_t key_len;
    uint8_t secret_len;
} suites[BF_SUITE_COUNT] = {
    [BF_SUITE_AES_128_GCM_SHA256] = {"AES-128-GCM", "TLS_AES_128_GCM_SHA256", EVP_sha256, 0x1301,
                                     16, 32},
    [BF_SUITE_AES_256_GCM_SHA384] = {"AES-256-GCM", "TLS_AES_256_GCM_SHA384", EVP_sha384, 0x1302,
                                     32, 48},
    [BF_SUITE_CHACHA20_POLY1305_SHA256] = {"ChaCha20-Poly1305", "TLS_CHACHA20_POLY1305_SHA256",
                                           EVP_sha256, 0x1303, 32, 32},
};

enum bf_rec_suite bf_rec_suite_of(uint16_t number)
{
    for (unsigned i = BF_SUITE_NONE + 1; i < BF_SUITE_COUNT; i++)
        if (suites[i].number == number)
            return (enum bf_rec_suite)i;
    return BF_SUITE_NONE;
}

uint16_t bf_rec_suite_number(enum bf_rec_suite suite)
{
    return suites[suite].number;
}

const char *bf_rec_suite_text(enum bf_rec_suite suite)
{
    return suites[suite].text;
}

size_t bf_rec_secret_len(enum bf_rec_suite suite)
{
    return suites[suite].secret_len;
}

/* ---- ciphers ---- */

int bf_rec_ciphers_init(struct bf_rec_ciphers *ciphers)
{
    for (unsigned i = BF_SUITE_NONE + 1; i < BF_SUITE_COUNT; i++) {
        ciphers->cipher[i] = EVP_CIPHER_fetch(NULL, suites[i].cipher, NULL);
        ciphers->context[i] = EVP_CIPHER_CTX_new();
        if (!ciphers->cipher[i] || !ciphers->context[i] ||
            EVP_CipherInit_ex2(ciphers->context[i], ciphers->cipher[i], NULL, NULL, 1, NULL) != 1)
            return BF_ERR_NO_MEMORY;
    }
    return 0;
}

void bf_rec_ciphers_fini(struct bf_rec_ciphers *ciphers)
{
    for (unsigned i = 0; i < BF_SUITE_COUNT; i++) {
        EVP_CIPHER_CTX_free(ciphers->context[i]);
        EVP_CIPHER_free(ciphers->cipher[i]);
    }
    *ciphers = (struct bf_rec_ciphers){0};
}

/* ---- keys ---- */

/* HKDF-Expand-Label without a context (RFC 8446 section 7.1). All that is asked for is no longer
 * than a digest, so HKDF-Expand (RFC 5869) is one HMAC. */
static bool expand_label(const struct bf_rec_keys *keys, const char *label, uint8_t *to, size_t len)
{
    const struct suite *suite = &suites[keys->suite];
    uint8_t info[32], digest[EVP_MAX_MD_SIZE];
    unsigned digest_len = 0;
    size_t label_len = strlen(label), at = 0;
    info[at++] = 0;
    info[at++] = (uint8_t)len;
    info[at++] = (uint8_t)(6 + label_len);
    memcpy(info + at, "tls13 ", 6);
    memcpy(info + at + 6, label, label_len);
    at += 6 + label_len;
    info[at++] = 0; /* no context */
    info[at++] = 1; /* first and only block */
    bool good = HMAC(suite->digest(), keys->secret, suite->secret_len, info, at, digest,
                     &digest_len) != NULL &&
                len <= digest_len;
    if (good)
        memcpy(to, digest, len);
    OPENSSL_cleanse(digest, sizeof(digest));
    return good;
}

bool bf_rec_keys_derive(struct bf_rec_keys *keys, enum bf_rec_suite suite)
{
    keys->suite = (uint8_t)suite;
    keys->sequence = 0;
    return expand_label(keys, "key", keys->key, suites[suite].key_len) &&
           expand_label(keys, "iv", keys->iv, BF_REC_IV_BYTES);
}

bool bf_rec_keys_update(struct bf_rec_keys *keys)
{
    uint8_t next[BF_REC_SECRET_BYTES];
    size_t len = suites[keys->suite].secret_len;
    if (!expand_label(keys, "traffic upd", next, len))
        return false;
    memcpy(keys->secret, next, len);
    OPENSSL_cleanse(next, sizeof(next));
    return bf_rec_keys_derive(keys, (enum bf_rec_suite)keys->suite);
}

/* ---- records ---- */

/* Gives the context the key and the nonce of the next record (section 5.3). */
static EVP_CIPHER_CTX *arm(struct bf_rec_ciphers *ciphers, const struct bf_rec_keys *keys,
                           bool is_seal)
{
    EVP_CIPHER_CTX *context = ciphers->context[keys->suite];
    uint8_t nonce[BF_REC_IV_BYTES];
    memcpy(nonce, keys->iv, sizeof(nonce));
    for (unsigned i = 0; i < 8; i++)
        nonce[BF_REC_IV_BYTES - 1 - i] ^= (uint8_t)(keys->sequence >> (8 * i));
    return EVP_CipherInit_ex2(context, NULL, keys->key, nonce, is_seal, NULL) == 1 ? context : NULL;
}

static bool seal_body(EVP_CIPHER_CTX *context, const uint8_t *header, enum bf_rec_type type,
                      const uint8_t *plain, size_t len, size_t padding, uint8_t *to)
{
    uint8_t tail[64] = {(uint8_t)type};
    size_t left = padding + 1; /* the type, and zeros */
    int n = 0;
    if (EVP_EncryptUpdate(context, NULL, &n, header, BF_REC_HEADER_BYTES) != 1 ||
        (len > 0 && EVP_EncryptUpdate(context, to, &n, plain, (int)len) != 1))
        return false;
    to += len;
    while (left > 0) {
        size_t part = left < sizeof(tail) ? left : sizeof(tail);
        if (EVP_EncryptUpdate(context, to, &n, tail, (int)part) != 1)
            return false;
        tail[0] = BF_REC_NONE;
        to += part;
        left -= part;
    }
    return EVP_EncryptFinal_ex(context, to, &n) == 1 &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, BF_REC_TAG_BYTES, to) == 1;
}

size_t bf_rec_seal(struct bf_rec_ciphers *ciphers, struct bf_rec_keys *keys, enum bf_rec_type type,
                   const uint8_t *plain, size_t len, size_t padding, uint8_t *to)
{
    EVP_CIPHER_CTX *context = arm(ciphers, keys, true);
    size_t body = len + 1 + padding + BF_REC_TAG_BYTES;
    to[0] = BF_REC_DATA;
    to[1] = LEGACY_VERSION >> 8;
    to[2] = LEGACY_VERSION & 0xff;
    to[3] = (uint8_t)(body >> 8);
    to[4] = (uint8_t)body;
    if (!context || !seal_body(context, to, type, plain, len, padding, to + BF_REC_HEADER_BYTES)) {
        ERR_clear_error();
        return 0;
    }
    keys->sequence++;
    return BF_REC_HEADER_BYTES + body;
}

static bool open_body(EVP_CIPHER_CTX *context, const uint8_t *header, const uint8_t *body,
                      size_t len, uint8_t *to)
{
    uint8_t tag[BF_REC_TAG_BYTES];
    int n = 0;
    memcpy(tag, body + len, sizeof(tag));
    return EVP_DecryptUpdate(context, NULL, &n, header, BF_REC_HEADER_BYTES) == 1 &&
           (len == 0 || EVP_DecryptUpdate(context, to, &n, body, (int)len) == 1) &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, sizeof(tag), tag) == 1 &&
           EVP_DecryptFinal_ex(context, to + len, &n) == 1;
}

enum bf_rec_alert bf_rec_open(struct bf_rec_ciphers *ciphers, struct bf_rec_keys *keys,
                              const uint8_t *header, const uint8_t *body, size_t len, uint8_t *to,
                              uint8_t *ret_type, size_t *ret_len)
{
    if (len < BF_REC_TAG_BYTES)
        return BF_ALERT_BAD_RECORD_MAC;
    EVP_CIPHER_CTX *context = arm(ciphers, keys, false);
    size_t inner = len - BF_REC_TAG_BYTES;
    if (!context || !open_body(context, header, body, inner, to)) {
        ERR_clear_error();
        return BF_ALERT_BAD_RECORD_MAC;
    }
    keys->sequence++;
    if (inner > BF_REC_PLAIN_BYTES_MAX + 1)
        return BF_ALERT_RECORD_OVERFLOW;
    while (inner > 0 && to[inner - 1] == BF_REC_NONE)
        inner--;
    if (inner == 0)
        return BF_ALERT_UNEXPECTED_MESSAGE; /* section 5.4: no type in it */
    *ret_type = to[inner - 1];
    *ret_len = inner - 1;
    return BF_ALERT_CLOSE_NOTIFY;
}
