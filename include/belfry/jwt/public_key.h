/*
 * The public key that users' tokens are verified by, as both planes read it: one rule of what is
 * fit, so that no plane takes a key that the other refuses. RFC 7518 sections 3.3 and 3.4, RFC
 * 8037. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "belfry/jwt/jwt.h"

/* Whether a key is of the kind and strength that its alg needs. */
static inline bool bf_jwt_key_is_fit(const EVP_PKEY *pkey, enum bf_jwt_alg alg)
{
    char group[32] = "";
    switch (alg) {
    case BF_JWT_RS256:
        return EVP_PKEY_is_a(pkey, "RSA") && EVP_PKEY_get_bits(pkey) >= BF_JWT_RSA_BITS_MIN &&
               EVP_PKEY_get_size(pkey) <= (int)BF_JWT_SIGNATURE_BYTES_MAX;
    case BF_JWT_ES256:
        return EVP_PKEY_is_a(pkey, "EC") &&
               EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) == 1 &&
               strcmp(group, "prime256v1") == 0;
    case BF_JWT_EDDSA:
        return EVP_PKEY_is_a(pkey, "ED25519");
    case BF_JWT_HS256:
    case BF_JWT_ALG_COUNT:
    default:
        return false;
    }
}

/* Of a PEM text; the caller frees it. NULL: it cannot be read, or is not fit for |alg|. */
static inline EVP_PKEY *bf_jwt_read_public_key(struct bf_bytes pem, enum bf_jwt_alg alg)
{
    BIO *bio = BIO_new_mem_buf(pem.at, (int)pem.len);
    EVP_PKEY *pkey = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    if (pkey && !bf_jwt_key_is_fit(pkey, alg)) {
        EVP_PKEY_free(pkey);
        return NULL;
    }
    return pkey;
}
