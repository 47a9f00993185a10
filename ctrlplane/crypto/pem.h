/* Inside of crypto/: reading of PEM texts with OpenSSL's types. */
#pragma once

#include <openssl/types.h>

#include "belfry/base/cursor.h"

/* A private key without a passphrase; NULL: there is none in |pem|. EVP_PKEY_free is the caller's.
 */
EVP_PKEY *bf_pem_private_key(struct bf_bytes pem);
