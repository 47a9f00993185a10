/* Server TLS of a provider: TLS 1.2 and 1.3, ALPN, client certificates for APNs. */
#pragma once

#include "sim_creds.h"

/* NULL after a line on stderr. The connection's struct sim_conn is its app data (for forced ALPN).
 */
SSL_CTX *sim_tls_create(const struct sim_creds *creds, enum sim_provider_id provider);
