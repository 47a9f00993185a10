/* Client contexts: what the push adapters connect to providers with. See tls.h. */
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "tls/tls_impl.h"

static bool set_alpn(SSL_CTX *context, const char *protocol)
{
    uint8_t list[64];
    size_t len = strlen(protocol);
    if (len == 0 || len >= sizeof(list))
        return false;
    list[0] = (uint8_t)len;
    memcpy(list + 1, protocol, len);
    return SSL_CTX_set_alpn_protos(context, list, (unsigned)len + 1) == 0;
}

static int build(SSL_CTX *context, const struct bf_tls_client_opts *opts, char *err, size_t err_len)
{
    int rc = 0;
    if (!bf_tls_common_settings(context) || (opts->alpn && !set_alpn(context, opts->alpn)) ||
        (opts->version_max && SSL_CTX_set_max_proto_version(context, opts->version_max) != 1)) {
        snprintf(err, err_len, "the settings cannot be used");
        return BF_ERR_MALFORMED;
    }
    SSL_CTX_set_verify(context, opts->no_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if (opts->ca_pem.len > 0) {
        rc = bf_tls_pem_trust(context, opts->ca_pem, false, err, err_len);
    } else if (opts->trust) {
        SSL_CTX_set1_cert_store(context, (X509_STORE *)opts->trust);
    } else if (!opts->no_verify && SSL_CTX_set_default_verify_paths(context) != 1) {
        snprintf(err, err_len, "the system has no CA certificates");
        rc = BF_ERR_MALFORMED;
    }
    if (rc == 0 && opts->cert_pem.len > 0)
        rc = bf_tls_pem_chain(context, opts->cert_pem, err, err_len);
    if (rc == 0 && opts->cert_pem.len > 0)
        rc = bf_tls_pem_key(context, opts->key_pem, err, err_len);
    return rc;
}

struct bf_tls_trust *bf_tls_trust_system(void)
{
    /* OpenSSL's own place first; the second is Debian's, where its package puts no link */
    const char *const files[] = {getenv(X509_get_default_cert_file_env()),
                                 X509_get_default_cert_file(),
                                 "/etc/ssl/certs/ca-certificates.crt"};
    X509_STORE *store = X509_STORE_new();
    for (size_t i = 0; store && i < sizeof(files) / sizeof(files[0]); i++)
        if (files[i] && X509_STORE_load_file(store, files[i]) == 1)
            return (struct bf_tls_trust *)store;
    X509_STORE_free(store);
    ERR_clear_error();
    return NULL;
}

void bf_tls_trust_free(struct bf_tls_trust *trust)
{
    X509_STORE_free((X509_STORE *)trust);
}

int bf_tls_client_create(const struct bf_tls_client_opts *opts, struct bf_tls_client **ret,
                         char *err, size_t err_len)
{
    struct bf_tls_client *client = calloc(1, sizeof(*client));
    if (!client)
        return BF_ERR_NO_MEMORY;
    ERR_clear_error();
    client->no_verify = opts->no_verify;
    client->context = SSL_CTX_new(TLS_client_method());
    int rc = client->context ? build(client->context, opts, err, err_len) : BF_ERR_NO_MEMORY;
    if (rc != 0) {
        bf_tls_client_destroy(client);
        return rc;
    }
    *ret = client;
    return 0;
}

void bf_tls_client_destroy(struct bf_tls_client *client)
{
    if (!client)
        return;
    SSL_CTX_free(client->context);
    free(client);
}

/* SNI carries names only (RFC 6066); an address is checked against the certificate all the same. */
static bool set_host(SSL *ssl, const char *host)
{
    uint8_t address[sizeof(struct in6_addr)];
    bool is_address =
        inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    if (is_address)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

int bf_tls_connect(struct bf_tls_engine *engine, const struct bf_tls_client *client,
                   const char *host, const struct bf_tls_ticket *ticket, struct bf_tls_session *ret)
{
    SSL *ssl = SSL_new(client->context);
    (void)engine;
    if (!ssl)
        return BF_ERR_NO_MEMORY;
    SSL_set_connect_state(ssl);
    if ((host && !set_host(ssl, host)) ||
        (ticket && SSL_set_session(ssl, (SSL_SESSION *)(uintptr_t)ticket) != 1)) {
        SSL_free(ssl);
        ERR_clear_error();
        return BF_ERR_NO_MEMORY;
    }
    *ret = (struct bf_tls_session){.ssl = ssl, .state = BF_TLS_HANDSHAKE};
    return 0;
}

struct bf_tls_ticket *bf_tls_ticket_take(const struct bf_tls_session *s)
{
    SSL_SESSION *session = s->ssl ? SSL_get1_session(s->ssl) : NULL;
    if (session && SSL_SESSION_is_resumable(session))
        return (struct bf_tls_ticket *)session;
    SSL_SESSION_free(session);
    return NULL;
}

void bf_tls_ticket_free(struct bf_tls_ticket *ticket)
{
    SSL_SESSION_free((SSL_SESSION *)ticket);
}
