/* Server TLS: see sim_tls.h. */
#include "sim_tls.h"

#include <openssl/err.h>
#include <stdio.h>

#include "sim_conn.h"
#include "sim_provider.h"

#define READ_BUFFER_BYTES 32768 /* one recv brings several records of a busy client */

/* h2 before http/1.1, of what the provider speaks; a fault may force a wrong answer. */
static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                       const unsigned char *in, unsigned in_n, void *arg)
{
    const struct sim_provider *p = arg;
    const struct sim_conn *c = SSL_get_app_data(ssl);
    if (c->alpn && strcmp(c->alpn, "none") == 0)
        return SSL_TLSEXT_ERR_NOACK;
    if (c->alpn && strcmp(c->alpn, "alert") == 0)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    if (c->alpn) {
        *out = (const unsigned char *)c->alpn;
        *out_n = (unsigned char)strlen(c->alpn);
        return SSL_TLSEXT_ERR_OK;
    }
    static const unsigned char h2[] = "\x02h2", http1[] = "\x08http/1.1";
    unsigned char *chosen = NULL;
    if ((p->h2 &&
         SSL_select_next_proto(&chosen, out_n, h2, 3, in, in_n) == OPENSSL_NPN_NEGOTIATED) ||
        (p->http1 &&
         SSL_select_next_proto(&chosen, out_n, http1, 9, in, in_n) == OPENSSL_NPN_NEGOTIATED)) {
        *out = chosen;
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Any certificate may knock: a wrong one gets its answer (BadCertificate) in HTTP. */
static int take_any(int ok, X509_STORE_CTX *store)
{
    (void)ok;
    (void)store;
    return 1;
}

SSL_CTX *sim_tls_create(const struct sim_creds *creds, enum sim_provider_id provider)
{
    const struct sim_provider *p = &sim_providers[provider];
    SSL_CTX *t = SSL_CTX_new(TLS_server_method());
    bool ok = t && SSL_CTX_set_min_proto_version(t, TLS1_2_VERSION) == 1 &&
              SSL_CTX_use_certificate(t, creds->server) == 1 &&
              SSL_CTX_use_PrivateKey(t, creds->server_key) == 1 &&
              SSL_CTX_set_ciphersuites(t, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                          "TLS_CHACHA20_POLY1305_SHA256") == 1;
    if (!ok) {
        fprintf(stderr, "belfry-sim: TLS: %s\n", ERR_error_string(ERR_get_error(), NULL));
        SSL_CTX_free(t);
        return NULL;
    }
    SSL_CTX_set_mode(t, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(t, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_read_ahead(t, 1);
    SSL_CTX_set_default_read_buffer_len(t, READ_BUFFER_BYTES);
    SSL_CTX_set_num_tickets(t, 1);
    SSL_CTX_set_session_id_context(t, (const unsigned char *)p->name, (unsigned)strlen(p->name));
    SSL_CTX_set_alpn_select_cb(t, select_alpn, (void *)(uintptr_t)p);
    if (provider == SIM_APNS) {
        X509_STORE_add_cert(SSL_CTX_get_cert_store(t), creds->ca);
        SSL_CTX_add_client_CA(t, creds->ca);
        SSL_CTX_set_verify(t, SSL_VERIFY_PEER, take_any);
    }
    return t;
}
