/* HS256 user tokens for the load client (the one file of perf/ that uses OpenSSL). Any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PF_JWT_BYTES_MAX 512u

/* Writes {"sub":user,"exp":..} signed for key id "dev" of `scripts/dev`; returns its bytes. */
size_t pf_jwt_mint(const char *secret, size_t secret_len, const char *user, uint64_t expires_s,
                   char out[PF_JWT_BYTES_MAX]);
