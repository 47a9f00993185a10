/*
 * TLS for the HTTP server: sessions on non-blocking sockets, TLS 1.2 and later, HTTP/1.1 alone by
 * ALPN. A reload of the configuration is noticed at the next connect, which makes a new context;
 * sessions keep the one that they began with. No session tickets: producers keep their connections,
 * and a client certificate that is no longer accepted is refused at the next connect, not a day
 * later.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "http/server.h"

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/conf/conf.h"

struct bf_http_tls {
    pthread_mutex_t lock; /* the two below; never held over I/O */
    SSL_CTX *context;
    const struct bf_conf *conf; /* that |context| was made of, or that was refused */
};

/* ---- context ---- */

static BIO *memory_of(const uint8_t *at, uint32_t len)
{
    return BIO_new_mem_buf(at, (int)len);
}

/* The first certificate of a PEM text, then the chain that follows it. */
static bool use_chain(SSL_CTX *context, const struct bf_conf_cert *cert)
{
    BIO *bio = memory_of(cert->chain, cert->chain_len);
    X509 *x = bio ? PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL) : NULL;
    bool good = x && SSL_CTX_use_certificate(context, x) == 1;
    X509_free(x);
    while (good && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        good = SSL_CTX_add0_chain_cert(context, x) == 1; /* takes it */
        if (!good)
            X509_free(x);
    }
    ERR_clear_error(); /* the end of the text is an error to OpenSSL */
    BIO_free(bio);
    return good;
}

/* Nobody could type a passphrase. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)arg;
    return -1;
}

static bool use_key(SSL_CTX *context, const struct bf_conf_cert *cert)
{
    BIO *bio = memory_of(cert->key, cert->key_len);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    bool good =
        key && SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1;
    EVP_PKEY_free(key);
    BIO_free(bio);
    return good;
}

/* Whom client certificates must come from, told to clients too. */
static bool use_client_ca(SSL_CTX *context, const struct bf_conf *conf)
{
    BIO *bio = memory_of(conf->api_client_ca, conf->api_client_ca_len);
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    unsigned count = 0;
    X509 *x;
    while (bio && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        if (X509_STORE_add_cert(store, x) == 1 && SSL_CTX_add_client_CA(context, x) == 1)
            count++;
        X509_free(x);
    }
    ERR_clear_error();
    BIO_free(bio);
    SSL_CTX_set_verify(context,
                       SSL_VERIFY_PEER |
                           (conf->api_tls_client_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                       NULL);
    return count > 0;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char http11[] = "\x08http/1.1";
    unsigned char *chosen;
    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, out_len, http11, sizeof(http11) - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* RFC 7301 3.2 */
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *make_context(const struct bf_conf *conf, char *err, size_t err_len)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    const char *fault = NULL;
    if (!context || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1)
        fault = "no memory for it";
    else if (!use_chain(context, &conf->api_cert))
        fault = "api.tls.cert is no certificate in PEM form";
    else if (!use_key(context, &conf->api_cert))
        fault = "api.tls.key is not the key of api.tls.cert";
    else if (conf->api_client_ca_len > 0 && !use_client_ca(context, conf))
        fault = "api.tls.client_ca holds no CA certificate in PEM form";
    if (fault) {
        snprintf(err, err_len, "TLS of the API: %s", fault);
        SSL_CTX_free(context);
        ERR_clear_error();
        return NULL;
    }
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
                                     SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    return context;
}

int bf_http_tls_create(const struct bf_conf *conf, struct bf_http_tls **ret, char *err,
                       size_t err_len)
{
    *ret = NULL;
    if (conf->api_cert.chain_len == 0)
        return 0;
    struct bf_http_tls *tls = calloc(1, sizeof(*tls));
    if (!tls)
        return -ENOMEM;
    tls->conf = conf;
    tls->context = make_context(conf, err, err_len);
    if (!tls->context) {
        free(tls);
        return BF_ERR_MALFORMED;
    }
    pthread_mutex_init(&tls->lock, NULL);
    *ret = tls;
    return 0;
}

void bf_http_tls_destroy(struct bf_http_tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->context);
    pthread_mutex_destroy(&tls->lock);
    free(tls);
}

/* The context of the configuration in force; one that cannot be made leaves the one before. */
static SSL_CTX *current_context(struct bf_http_tls *tls, const struct bf_conf *conf)
{
    pthread_mutex_lock(&tls->lock);
    if (tls->conf != conf) {
        char err[160] = "TLS of the API: a restart of the control process turns it off";
        SSL_CTX *fresh = conf->api_cert.chain_len > 0 ? make_context(conf, err, sizeof(err)) : NULL;
        if (fresh) {
            SSL_CTX_free(tls->context); /* sessions hold it too */
            tls->context = fresh;
        } else {
            BF_WARN("ctrlplane", "%s; new connections go on with the certificate before", err);
        }
        tls->conf = conf;
    }
    SSL_CTX *context = tls->context;
    SSL_CTX_up_ref(context);
    pthread_mutex_unlock(&tls->lock);
    return context;
}

/* ---- sessions ---- */

struct ssl_st *bf_http_tls_open(struct bf_http_tls *tls, const struct bf_conf *conf, int fd)
{
    SSL_CTX *context = current_context(tls, conf);
    SSL *ssl = SSL_new(context);
    SSL_CTX_free(context); /* the session has its own reference */
    if (ssl && SSL_set_fd(ssl, fd) == 1) {
        SSL_set_accept_state(ssl);
        return ssl;
    }
    SSL_free(ssl);
    return NULL;
}

void bf_http_tls_close(struct ssl_st *ssl)
{
    if (SSL_is_init_finished(ssl))
        (void)SSL_shutdown(ssl); /* RFC 8446 6.1; what does not fit the socket is not waited for */
    ERR_clear_error();
}

void bf_http_tls_free(struct ssl_st *ssl)
{
    SSL_free(ssl);
}

static long outcome(SSL *ssl, int rc)
{
    int why = SSL_get_error(ssl, rc);
    ERR_clear_error();
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        return -EAGAIN;
    return why == SSL_ERROR_ZERO_RETURN ? 0 : -ECONNRESET;
}

long bf_http_tls_handshake(struct ssl_st *ssl)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(ssl);
    if (rc == 1)
        return 1;
    long why = outcome(ssl, rc);
    return why == 0 ? -ECONNRESET : why;
}

long bf_http_tls_receive(struct ssl_st *ssl, char *to, size_t cap)
{
    ERR_clear_error();
    int rc = SSL_read(ssl, to, cap < INT_MAX ? (int)cap : INT_MAX);
    return rc > 0 ? rc : outcome(ssl, rc);
}

long bf_http_tls_send(struct ssl_st *ssl, const char *from, size_t len)
{
    ERR_clear_error();
    int rc = SSL_write(ssl, from, len < INT_MAX ? (int)len : INT_MAX);
    if (rc > 0)
        return rc;
    long why = outcome(ssl, rc);
    return why == 0 ? -EPIPE : why;
}

/* ---- who is there ---- */

static bool san_names(X509 *x, bool (*names)(void *arg, struct bf_bytes name), void *arg)
{
    GENERAL_NAMES *list = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    bool found = false;
    for (int i = 0; list && i < sk_GENERAL_NAME_num(list) && !found; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(list, i);
        if (name->type != GEN_DNS && name->type != GEN_EMAIL && name->type != GEN_URI)
            continue;
        const ASN1_STRING *text = name->d.ia5;
        found = names(arg, (struct bf_bytes){(const char *)ASN1_STRING_get0_data(text),
                                             (size_t)ASN1_STRING_length(text)});
    }
    GENERAL_NAMES_free(list);
    return found;
}

static bool common_name(X509 *x, bool (*names)(void *arg, struct bf_bytes name), void *arg)
{
    X509_NAME *subject = X509_get_subject_name(x);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *text = NULL;
    /* two common names would be a choice, and which one counts is not ours to guess */
    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
        return false;
    int len =
        ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    bool found = len > 0 && names(arg, (struct bf_bytes){(const char *)text, (size_t)len});
    if (len >= 0)
        OPENSSL_free(text);
    return found;
}

bool bf_http_tls_names(struct ssl_st *ssl, bool (*names)(void *arg, struct bf_bytes name),
                       void *arg)
{
    X509 *x = SSL_get0_peer_certificate(ssl);
    if (!x || SSL_get_verify_result(ssl) != X509_V_OK)
        return false;
    return san_names(x, names, arg) || common_name(x, names, arg);
}
