/*
 * Hashes, MACs and secrets of the control process. OpenSSL is used in this folder and in http/tls.c
 * alone. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

#define BF_SHA256_BYTES 32u

void bf_sha256(struct bf_bytes text, uint8_t out[BF_SHA256_BYTES]);
/* HMAC-SHA-256 (RFC 2104). */
void bf_hmac_sha256(struct bf_bytes key, struct bf_bytes text, uint8_t out[BF_SHA256_BYTES]);
/* Compares in constant time, so that the time does not tell where they differ. */
bool bf_is_same_secret(const uint8_t *a, const uint8_t *b, size_t len);
/* Random bytes that nobody can guess (getrandom). */
void bf_random(void *out, size_t len);
