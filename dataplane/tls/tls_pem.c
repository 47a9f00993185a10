/* Certificates, keys and trust from PEM text, with errors that a person can act upon. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>

#include "belfry/base/err.h"
#include "tls/tls_impl.h"

/* TLS 1.2: forward secrecy and AEAD only (RFC 7540 appendix A refuses the others for h2). */
#define CIPHERS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"
#define GROUPS      "X25519:P-256:P-384"

static int fail(char *err, size_t err_len, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    snprintf(err, err_len, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
    ERR_clear_error();
    return BF_ERR_MALFORMED;
}

/* A key with a passphrase is an error, never a question at a terminal. */
static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf, (void)size, (void)writing, (void)arg;
    return -1;
}

static BIO *open_pem(struct bf_bytes pem)
{
    return pem.len > 0 && pem.len <= INT32_MAX ? BIO_new_mem_buf(pem.at, (int)pem.len) : NULL;
}

/* Whether PEM text simply ended, which is how reading a list ends. */
static bool is_end(void)
{
    unsigned long code = ERR_peek_last_error();
    bool end = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
    if (end)
        ERR_clear_error();
    return end;
}

int bf_tls_pem_chain(SSL_CTX *context, struct bf_bytes pem, char *err, size_t err_len)
{
    BIO *bio = open_pem(pem);
    X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
    int der = cert ? i2d_X509(cert, NULL) : 0;
    int rc = 0;
    if (!cert || SSL_CTX_use_certificate(context, cert) != 1)
        rc = fail(err, err_len, "not a certificate in PEM form");
    X509_free(cert);
    while (rc == 0 && (cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        der += i2d_X509(cert, NULL);
        if (SSL_CTX_add0_chain_cert(context, cert) != 1) {
            X509_free(cert);
            rc = fail(err, err_len, "the chain cannot be used");
        }
    }
    if (rc == 0 && !is_end())
        rc = fail(err, err_len, "the chain is damaged");
    if (rc == 0 && (der < 0 || (unsigned)der > BF_TLS_CHAIN_BYTES_MAX)) {
        snprintf(err, err_len, "the chain has %d bytes; allowed %u", der, BF_TLS_CHAIN_BYTES_MAX);
        rc = BF_ERR_MALFORMED;
    }
    BIO_free(bio);
    return rc;
}

int bf_tls_pem_key(SSL_CTX *context, struct bf_bytes pem, char *err, size_t err_len)
{
    BIO *bio = open_pem(pem);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    int rc = 0;
    if (!key)
        rc = fail(err, err_len, "not a private key in PEM form without a passphrase");
    else if (SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1)
        rc = fail(err, err_len, "the key does not belong to the certificate");
    EVP_PKEY_free(key);
    BIO_free(bio);
    return rc;
}

int bf_tls_pem_trust(SSL_CTX *context, struct bf_bytes pem, bool is_server, char *err,
                     size_t err_len)
{
    BIO *bio = open_pem(pem);
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    uint32_t count = 0;
    int rc = 0;
    X509 *cert;
    while (rc == 0 && bio && (cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        if (X509_STORE_add_cert(store, cert) != 1 ||
            (is_server && SSL_CTX_add_client_CA(context, cert) != 1))
            rc = fail(err, err_len, "a CA certificate cannot be used");
        X509_free(cert);
        count++;
    }
    if (rc == 0 && (count == 0 || !is_end()))
        rc = fail(err, err_len, "not CA certificates in PEM form");
    BIO_free(bio);
    return rc;
}

bool bf_tls_common_settings(SSL_CTX *context)
{
    /* AUTO_RETRY: a read goes on after a session ticket or KeyUpdate. RELEASE_BUFFERS: 34 KB less
     * while idle. */
    (void)SSL_CTX_set_mode(context, SSL_MODE_AUTO_RETRY | SSL_MODE_RELEASE_BUFFERS |
                                        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    (void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                           SSL_OP_CIPHER_SERVER_PREFERENCE |
                                           SSL_OP_PRIORITIZE_CHACHA);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(context, (long)BF_TLS_CLIENT_CERT_BYTES_MAX);
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, CIPHERS_1_2) == 1 &&
           SSL_CTX_set1_groups_list(context, GROUPS) == 1;
}
