/* User tokens for the load client: HS256, ES256. Any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PF_JWT_BYTES_MAX 512u

/* Writes {"sub":user,"exp":..} signed for key id "dev" of `scripts/dev`; returns its bytes. */
size_t pf_jwt_mint(const char *secret, size_t secret_len, const char *user, uint64_t expires_s,
                   char out[PF_JWT_BYTES_MAX]);

/* The same signed with ES256 for key id "es". |key|: from pf_jwt_key_make. */
size_t pf_jwt_mint_es256(void *key, const char *user, uint64_t expires_s,
                         char out[PF_JWT_BYTES_MAX]);
/* A P-256 key, whose public half goes to a PEM file. */
void *pf_jwt_key_make(const char *public_file);
/* A provider token of APNs: ES256 with its key id and team. Returns its length. */
size_t pf_jwt_mint_apns(void *key, const char *key_id, const char *team, uint64_t now_s,
                        char out[PF_JWT_BYTES_MAX]);
