/*
 * Web Push encryption (RFC 8291): only the browser that subscribed can read what is encrypted here.
 * Any thread.
 */
#pragma once

#include <stdint.h>

#include "belfry/base/cursor.h"
#include "crypto/sign.h"

#define BF_WEBPUSH_PUBLIC_BYTES BF_P256_PUBLIC_BYTES
#define BF_WEBPUSH_AUTH_BYTES   16u
#define BF_WEBPUSH_SALT_BYTES   16u
#define BF_WEBPUSH_RECORD_BYTES 4096u
/* salt, record size, length of the key id, our public key (RFC 8188 section 2.1) */
#define BF_WEBPUSH_HEADER_BYTES (BF_WEBPUSH_SALT_BYTES + 4u + 1u + BF_WEBPUSH_PUBLIC_BYTES)
/* One record: services take 4,096 bytes (RFC 8030 section 7.2); 16 of tag, one delimiter. */
#define BF_WEBPUSH_PLAIN_BYTES_MAX   (BF_WEBPUSH_RECORD_BYTES - BF_WEBPUSH_HEADER_BYTES - 16u - 1u)
#define BF_WEBPUSH_BODY_BYTES(plain) (BF_WEBPUSH_HEADER_BYTES + (plain) + 1u + 16u)

/* Keys of a subscription, as the browser gave them. */
struct bf_webpush_keys {
    uint8_t p256dh[BF_WEBPUSH_PUBLIC_BYTES];
    uint8_t auth[BF_WEBPUSH_AUTH_BYTES];
};

/* Random values of one message; only tests with published vectors give them. */
struct bf_webpush_fresh {
    uint8_t private_key[32];
    uint8_t public_key[BF_WEBPUSH_PUBLIC_BYTES];
    uint8_t salt[BF_WEBPUSH_SALT_BYTES];
};

/* Base64url texts into keys. BF_ERR_MALFORMED: lengths are wrong, or not a point of the curve. */
int bf_webpush_keys_read(struct bf_bytes p256dh, struct bf_bytes auth,
                         struct bf_webpush_keys *ret_keys);

/*
 * Encrypts |plain| for one subscription into |out|, which has BF_WEBPUSH_BODY_BYTES(plain.len)
 * bytes. |fresh| NULL: made here. Returns 0, BF_ERR_TOO_LARGE above BF_WEBPUSH_PLAIN_BYTES_MAX, or
 * BF_ERR_MALFORMED when the subscription's key is not a point of the curve. About 60 us.
 */
int bf_webpush_seal(const struct bf_webpush_keys *keys, struct bf_bytes plain,
                    const struct bf_webpush_fresh *fresh, uint8_t *out);
