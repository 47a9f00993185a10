/*
 * Development credentials in the state directory: made once, found again at the next start, so that
 * clients keep their trust. CA, server certificate for localhost, APNs keys, client certificates,
 * service account. All OpenSSL keys live here; read-only after sim_creds_open, any thread.
 */
#pragma once

#include <openssl/ssl.h>

#include "sim_world.h"

struct sim_creds {
    char dir[SIM_NAME_BYTES_MAX * 2];
    EVP_PKEY *ca_key, *server_key, *oauth_key;
    X509 *ca, *server;
    EVP_PKEY *apns[SIM_APNS_KEYS_MAX]; /* in step with sim_world.keys */
    uint8_t secret[32];                /* of access tokens */
};

/* Opens or makes the credentials in |dir| and fills the key table of |w|. False after a line on
 * stderr. */
bool sim_creds_open(struct sim_creds *c, const char *dir, struct sim_world *w);
/* Adds a key of one's own: public or private PEM. */
bool sim_creds_add_key(struct sim_creds *c, struct sim_world *w, const char *kid, const char *team,
                       const char *file);
/* Writes service_account.json, whose token_uri is known only once the ports are. */
bool sim_creds_write_account(const struct sim_creds *c, const struct sim_world *w);
void sim_creds_close(struct sim_creds *c);

/* Reads the state of a connection's client certificate. */
void sim_creds_peer(const SSL *ssl, struct sim_peer *peer);
