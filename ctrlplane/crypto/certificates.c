/* Certificates and private keys in PEM; see certificates.h. */
#include "crypto/certificates.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>

#include "belfry/base/err.h"
#include "belfry/conf/conf.h"
#include "crypto/pem.h"

/* A key with a passphrase is refused, because nobody could type it. */
static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf, (void)size, (void)writing, (void)arg;
    return -1;
}

EVP_PKEY *bf_pem_private_key(struct bf_bytes pem)
{
    BIO *bio = BIO_new_mem_buf(pem.at, (int)pem.len);
    EVP_PKEY *pkey = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    return pkey;
}

/* All certificates of a PEM text; the first is given to the caller. NULL: one is damaged, or none.
 */
static X509 *chain_read(const uint8_t *pem, uint32_t len)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    X509 *first = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
    X509 *next = first;
    while (next) {
        next = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
        X509_free(next);
    }
    unsigned long code = ERR_peek_last_error();
    if (first && ERR_GET_REASON(code) != PEM_R_NO_START_LINE) {
        X509_free(first);
        first = NULL;
    }
    ERR_clear_error();
    BIO_free(bio);
    return first;
}

static const char *certificate_fault(const struct bf_conf_cert *conf)
{
    X509 *cert = chain_read(conf->chain, conf->chain_len);
    EVP_PKEY *key = bf_pem_private_key((struct bf_bytes){(const char *)conf->key, conf->key_len});
    const char *fault = NULL;
    if (!cert)
        fault = "cert is not a certificate with its chain, in PEM form";
    else if (!key)
        fault = "key is not a private key in PEM form without a passphrase";
    else if (X509_check_private_key(cert, key) != 1)
        fault = "the key does not belong to the certificate";
    else if (X509_cmp_current_time(X509_get0_notAfter(cert)) < 0)
        fault = "the certificate has expired";
    ERR_clear_error();
    X509_free(cert);
    EVP_PKEY_free(key);
    return fault;
}

static int api_certificate_check(const struct bf_conf *conf, char *err, size_t err_len)
{
    const char *fault = conf->api_cert.chain_len ? certificate_fault(&conf->api_cert) : NULL;
    X509 *ca =
        conf->api_client_ca_len ? chain_read(conf->api_client_ca, conf->api_client_ca_len) : NULL;
    if (fault)
        snprintf(err, err_len, "api.tls.cert and api.tls.key: %s", fault);
    else if (conf->api_client_ca_len > 0 && !ca)
        snprintf(err, err_len, "api.tls.client_ca: not CA certificates in PEM form");
    bool is_good = !fault && (conf->api_client_ca_len == 0 || ca);
    X509_free(ca);
    return is_good ? 0 : BF_ERR_MALFORMED;
}

int bf_certificates_check(const struct bf_conf *conf, char *err, size_t err_len)
{
    for (uint32_t i = 0; i < conf->cert_count; i++) {
        const char *fault = certificate_fault(&conf->certs[i]);
        if (fault) {
            snprintf(err, err_len, "tls.certificates: entry %u: %s", i + 1, fault);
            return BF_ERR_MALFORMED;
        }
    }
    X509 *ca = conf->client_ca_len ? chain_read(conf->client_ca, conf->client_ca_len) : NULL;
    if (conf->client_ca_len > 0 && !ca) {
        snprintf(err, err_len, "tls.client_ca: not CA certificates in PEM form");
        return BF_ERR_MALFORMED;
    }
    X509_free(ca);
    return api_certificate_check(conf, err, err_len);
}

bool bf_is_certificate_pair(struct bf_bytes cert, struct bf_bytes key)
{
    BIO *bio = BIO_new_mem_buf(cert.at, (int)cert.len);
    X509 *x509 = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
    EVP_PKEY *pkey = bf_pem_private_key(key);
    bool is_pair = x509 && pkey && X509_check_private_key(x509, pkey) == 1;
    X509_free(x509);
    EVP_PKEY_free(pkey);
    BIO_free(bio);
    ERR_clear_error();
    return is_pair;
}
