/*
 * SHA-1 (FIPS 180-4) and base64, for Sec-WebSocket-Accept alone (RFC 6455 section 4.2.2): it proves
 * that the server has read the key and protects nothing. Code in proto/ may not use OpenSSL, so
 * this is our own. Pure; any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define BF_SHA1_BYTES 20u
/* Base64 of |n| bytes, padding included, no terminator. */
#define BF_BASE64_BYTES(n) (((n) + 2u) / 3u * 4u)

void bf_sha1(const void *data, size_t len, uint8_t out[BF_SHA1_BYTES]);

/* Writes BF_BASE64_BYTES(len) characters and returns that number. */
size_t bf_base64_write(const uint8_t *data, size_t len, char *out);
