/*
 * The record layer of TLS 1.3 (RFC 8446 sections 5 and 7) for one direction at a time: keys of a
 * traffic secret, records sealed and opened. Holds no record and allocates nothing once its ciphers
 * are made; what records mean is tls_lean.c's. Private to tls/, and for its tests. Owner: whoever
 * owns the ciphers, one thread.
 */
#pragma once

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BF_REC_HEADER_BYTES 5u
#define BF_REC_TAG_BYTES    16u /* of all three ciphers */
#define BF_REC_IV_BYTES     12u
#define BF_REC_KEY_BYTES    32u /* at most */
#define BF_REC_SECRET_BYTES 48u /* at most: SHA-384 */
/* Content of a record; one byte of type follows it (RFC 8446 section 5.2). */
#define BF_REC_PLAIN_BYTES_MAX 16384u
/* What a header may announce (RFC 8446 section 5.2: 2^14 + 256). */
#define BF_REC_CIPHER_BYTES_MAX 16640u
/* What a sealed record is longer than its content. */
#define BF_REC_OVERHEAD (BF_REC_HEADER_BYTES + 1u + BF_REC_TAG_BYTES)

/* Content types (RFC 8446 section 5.1). */
enum bf_rec_type {
    BF_REC_NONE = 0, /* padding */
    BF_REC_CHANGE_CIPHER_SPEC = 20,
    BF_REC_ALERT = 21,
    BF_REC_HANDSHAKE = 22,
    BF_REC_DATA = 23,
};

/* Alerts (RFC 8446 section 6). */
enum bf_rec_alert {
    BF_ALERT_CLOSE_NOTIFY = 0, /* as a result: no alert, all is well */
    BF_ALERT_UNEXPECTED_MESSAGE = 10,
    BF_ALERT_BAD_RECORD_MAC = 20,
    BF_ALERT_RECORD_OVERFLOW = 22,
    BF_ALERT_ILLEGAL_PARAMETER = 47,
    BF_ALERT_DECODE_ERROR = 50,
    BF_ALERT_INTERNAL_ERROR = 80,
    BF_ALERT_USER_CANCELED = 90,
};

enum bf_rec_suite {
    BF_SUITE_NONE = 0,
    BF_SUITE_AES_128_GCM_SHA256 = 1,
    BF_SUITE_AES_256_GCM_SHA384 = 2,
    BF_SUITE_CHACHA20_POLY1305_SHA256 = 3,
    BF_SUITE_COUNT
};
/* By the number that the handshake agrees on (0x1301 ...); BF_SUITE_NONE: another. */
enum bf_rec_suite bf_rec_suite_of(uint16_t number);
uint16_t bf_rec_suite_number(enum bf_rec_suite suite);
/* Its name as OpenSSL gives it. */
const char *bf_rec_suite_text(enum bf_rec_suite suite);
/* Bytes of a traffic secret. */
size_t bf_rec_secret_len(enum bf_rec_suite suite);

/* One direction of a connection. */
struct bf_rec_keys {
    uint8_t secret[BF_REC_SECRET_BYTES];
    uint8_t key[BF_REC_KEY_BYTES];
    uint8_t iv[BF_REC_IV_BYTES];
    uint8_t suite;     /* enum bf_rec_suite */
    uint64_t sequence; /* of the next record under this key */
};

/* One context for each cipher, given a key anew for each record: connections hold none. */
struct bf_rec_ciphers {
    EVP_CIPHER *cipher[BF_SUITE_COUNT];
    EVP_CIPHER_CTX *context[BF_SUITE_COUNT];
};
/* 0 or BF_ERR_NO_MEMORY. */
int bf_rec_ciphers_init(struct bf_rec_ciphers *ciphers);
/* Accepts what a failed init left half made. */
void bf_rec_ciphers_fini(struct bf_rec_ciphers *ciphers);

/* Key and IV of the secret in |keys| for |suite| (section 7.3); the sequence begins at 0. False:
 * OpenSSL has failed. */
bool bf_rec_keys_derive(struct bf_rec_keys *keys, enum bf_rec_suite suite);
/* The next generation, for a KeyUpdate (section 7.2). */
bool bf_rec_keys_update(struct bf_rec_keys *keys);

/*
 * Seals |len| <= BF_REC_PLAIN_BYTES_MAX bytes of |type| and |padding| zeros as a record at |to|,
 * which has room for len + padding + BF_REC_OVERHEAD. Returns its length, 0 if OpenSSL has failed.
 */
size_t bf_rec_seal(struct bf_rec_ciphers *ciphers, struct bf_rec_keys *keys, enum bf_rec_type type,
                   const uint8_t *plain, size_t len, size_t padding, uint8_t *to);
/*
 * Decrypts a record: its header and the |len| <= BF_REC_CIPHER_BYTES_MAX bytes that follow it. |to|
 * has room for |len|. Sets what was in it, without the padding. BF_ALERT_CLOSE_NOTIFY, or the alert
 * it deserves, and nothing is set.
 */
enum bf_rec_alert bf_rec_open(struct bf_rec_ciphers *ciphers, struct bf_rec_keys *keys,
                              const uint8_t *header, const uint8_t *body, size_t len, uint8_t *to,
                              uint8_t *ret_type, size_t *ret_len);
