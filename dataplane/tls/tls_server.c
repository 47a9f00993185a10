/*
 * Server contexts: one SSL_CTX for each certificate. Every session starts from the first one, which
 * has the callbacks. bf_tls_server is freed with that context, so a session in the middle of its
 * handshake keeps what it was started with even if the configuration is reloaded.
 */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "belfry/shm/ring.h"
#include "belfry/shm/user_key.h" /* xxHash */
#include "tls/tls_lean.h"

static const uint8_t alpn_protocols[] = "\x08" BF_TLS_ALPN;

/* Clients that resume present the ticket of any of our workers: all have this context. */
static const uint8_t session_context[] = "belfry";

/* ---- callbacks ---- */

static struct bf_tls_server *server_of(SSL *ssl)
{
    return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

static int on_name(SSL *ssl, int *alert, void *arg)
{
    const char *host = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    struct bf_tls_server *server = server_of(ssl);
    (void)alert, (void)arg;
    if (!host)
        return SSL_TLSEXT_ERR_NOACK;
    uint32_t context = bf_tls_names_find(server, host);
    if (context != 0 && !SSL_set_SSL_CTX(ssl, server->contexts[context]))
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    return SSL_TLSEXT_ERR_OK;
}

static int on_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in,
                   unsigned in_len, void *arg)
{
    uint8_t *chosen;
    (void)ssl, (void)arg;
    if (SSL_select_next_proto(&chosen, out_len, alpn_protocols, sizeof(alpn_protocols) - 1, in,
                              in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static bool ticket_mac(EVP_MAC_CTX *mac, uint8_t *key)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key, 32),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb: 1 use it, 2 use it and renew, 0 unknown, -1 error. */
static int on_ticket(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                     int is_new)
{
    struct bf_tls_server *server = server_of(ssl);
    uint32_t i = 0;
    if (is_new) {
        if (server->ticket_count == 0 || RAND_bytes(iv, EVP_MAX_IV_LENGTH) != 1)
            return -1;
        memcpy(name, server->tickets[0], 16);
    } else {
        while (i < server->ticket_count && memcmp(name, server->tickets[i], 16) != 0)
            i++;
        if (i == server->ticket_count)
            return 0;
    }
    uint8_t *key = server->tickets[i] + 16;
    if (EVP_CipherInit_ex2(cipher, EVP_aes_256_cbc(), key, iv, is_new, NULL) != 1 ||
        !ticket_mac(mac, key + 32))
        return -1;
    /* TLS 1.3: a ticket is for one use (RFC 8446 appendix C.4), so a new one follows it */
    return i == 0 && SSL_version(ssl) != TLS1_3_VERSION ? 1 : 2;
}

static int free_index(void);

/* The first context goes: nobody can come to the others any more. */
static void on_context_free(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl,
                            void *argp)
{
    struct bf_tls_server *server = ptr;
    (void)parent, (void)ad, (void)index, (void)argl, (void)argp;
    if (!server)
        return;
    for (uint32_t i = 1; i < server->count; i++)
        SSL_CTX_free(server->contexts[i]);
    OPENSSL_cleanse(server->tickets, sizeof(server->tickets));
    free(server);
}

static CRYPTO_ONCE free_index_once = CRYPTO_ONCE_STATIC_INIT;
static int free_index_value;

static void make_free_index(void)
{
    free_index_value = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, on_context_free);
}

static int free_index(void)
{
    (void)CRYPTO_THREAD_run_once(&free_index_once, make_free_index);
    return free_index_value;
}

/* ---- building ---- */

/* Names of the certificate itself, where the configuration gives none. */
static void add_own_names(struct bf_tls_server *server, uint32_t index)
{
    X509 *cert = SSL_CTX_get0_certificate(server->contexts[index]);
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS)
            continue;
        const ASN1_STRING *text = name->d.dNSName;
        (void)bf_tls_names_add(server, index, (const char *)ASN1_STRING_get0_data(text),
                               (size_t)ASN1_STRING_length(text));
    }
    GENERAL_NAMES_free(names);
}

static int add_names(struct bf_tls_server *server, uint32_t index, struct bf_reader *r, char *err,
                     size_t err_len)
{
    uint8_t count = bf_get_u8(r);
    for (uint32_t i = 0; i < count; i++) {
        struct bf_bytes name = bf_get_str16(r);
        if (r->failed || !bf_tls_names_add(server, index, name.at, name.len)) {
            snprintf(err, err_len, "'%.*s' is not a host name, or there are more than %u",
                     (int)bf_utf8_cut(name.at, name.len, 60), name.at ? name.at : "",
                     BF_TLS_NAMES_MAX);
            return BF_ERR_MALFORMED;
        }
    }
    if (count == 0)
        add_own_names(server, index);
    return 0;
}

static int add_certificate(struct bf_tls_server *server, struct bf_bytes value, char *err,
                           size_t err_len)
{
    struct bf_reader r = {.buf = (const uint8_t *)value.at, .len = value.len};
    struct bf_bytes chain = bf_get_str32(&r);
    struct bf_bytes key = bf_get_str32(&r);
    if (r.failed || server->count == BF_TLS_CERTS_MAX) {
        snprintf(err, err_len, "%s", r.failed ? "damaged record" : "too many certificates");
        return BF_ERR_MALFORMED;
    }
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context)
        return BF_ERR_NO_MEMORY;
    uint32_t index = server->count++;
    server->contexts[index] = context;
    SSL_CTX_set_app_data(context, server);
    if (!bf_tls_common_settings(context) ||
        SSL_CTX_set_session_id_context(context, session_context, sizeof(session_context) - 1) != 1)
        return BF_ERR_NO_MEMORY;
    int rc = bf_tls_pem_chain(context, chain, err, err_len);
    if (rc == 0)
        rc = bf_tls_pem_key(context, key, err, err_len);
    return rc == 0 ? add_names(server, index, &r, err, err_len) : rc;
}

static int set_options(struct bf_tls_server *server, struct bf_bytes ca, char *err, size_t err_len)
{
    bool tickets = (server->flags & BF_SNAP_TLS_F_TICKETS) && server->ticket_count > 0;
    int rc = 0;
    for (uint32_t i = 0; i < server->count && rc == 0; i++) {
        SSL_CTX *context = server->contexts[i];
        (void)SSL_CTX_set_tlsext_servername_callback(context, on_name);
        SSL_CTX_set_alpn_select_cb(context, on_alpn, NULL);
        if (server->flags & BF_SNAP_TLS_F_LEAN)
            bf_lean_prepare(context);
        /* one ticket: browsers and our clients open one socket, not two */
        (void)SSL_CTX_set_num_tickets(context, tickets ? 1 : 0);
        if (tickets)
            (void)SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket);
        else
            (void)SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
        if (ca.len > 0) {
            int require =
                server->flags & BF_SNAP_TLS_F_REQUIRE ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0;
            server->has_client_ca = true;
            SSL_CTX_set_verify(context, SSL_VERIFY_PEER | require, NULL);
            rc = bf_tls_pem_trust(context, ca, true, err, err_len);
        }
    }
    return rc;
}

static int read_ticket(struct bf_tls_server *server, struct bf_bytes value)
{
    struct bf_reader r = {.buf = (const uint8_t *)value.at, .len = value.len};
    (void)bf_get_u64(&r);
    if (r.failed || value.len - r.at != BF_SNAP_TICKET_KEY_BYTES)
        return BF_ERR_MALFORMED;
    if (server->ticket_count < BF_SNAP_TICKET_KEYS_MAX)
        memcpy(server->tickets[server->ticket_count++], value.at + r.at, BF_SNAP_TICKET_KEY_BYTES);
    return 0;
}

static int read_options(struct bf_tls_server *server, struct bf_bytes value,
                        struct bf_bytes *ret_ca)
{
    struct bf_reader r = {.buf = (const uint8_t *)value.at, .len = value.len};
    server->flags = bf_get_u8(&r);
    *ret_ca = bf_get_str32(&r);
    return r.failed ? BF_ERR_MALFORMED : 0;
}

static bool is_tls_record(uint16_t tag)
{
    return tag == BF_SNAP_TLS_CERT || tag == BF_SNAP_TLS_TICKET || tag == BF_SNAP_TLS_OPTIONS;
}

static int build(struct bf_tls_server *server, const uint8_t *snapshot, size_t len, char *err,
                 size_t err_len)
{
    struct bf_reader r = {.buf = snapshot, .len = len};
    struct bf_bytes ca = {0};
    int rc = 0;
    while (rc == 0 && r.at < r.len && !r.failed) {
        uint16_t tag = bf_get_u16(&r);
        if (tag == BF_SNAP_END)
            break;
        struct bf_bytes value = bf_get_str32(&r);
        if (r.failed)
            break;
        if (tag == BF_SNAP_TLS_CERT)
            rc = add_certificate(server, value, err, err_len);
        else if (tag == BF_SNAP_TLS_TICKET)
            rc = read_ticket(server, value);
        else if (tag == BF_SNAP_TLS_OPTIONS)
            rc = read_options(server, value, &ca);
    }
    if (rc == 0 && r.failed)
        rc = BF_ERR_MALFORMED;
    if (rc == 0 && server->count == 0)
        rc = BF_ERR_NOT_FOUND;
    return rc == 0 ? set_options(server, ca, err, err_len) : rc;
}

int bf_tls_server_create(const uint8_t *snapshot, size_t len, struct bf_tls_server **ret, char *err,
                         size_t err_len)
{
    struct bf_tls_server *server = calloc(1, sizeof(*server));
    if (!server)
        return BF_ERR_NO_MEMORY;
    if (err_len > 0)
        err[0] = '\0';
    ERR_clear_error();
    int rc = build(server, snapshot, len, err, err_len);
    if (server->count == 0) {
        free(server);
        return rc != 0 ? rc : BF_ERR_NOT_FOUND;
    }
    if (SSL_CTX_set_ex_data(server->contexts[0], free_index(), server) != 1) {
        on_context_free(NULL, server, NULL, 0, 0, NULL);
        return BF_ERR_NO_MEMORY; /* the first context leaks: there is no memory to go on with */
    }
    if (rc != 0) {
        bf_tls_server_destroy(server);
        return rc;
    }
    *ret = server;
    return 0;
}

void bf_tls_server_destroy(struct bf_tls_server *server)
{
    if (server)
        SSL_CTX_free(server->contexts[0]);
}

bool bf_tls_server_wants_kernel(const struct bf_tls_server *server)
{
    return server->flags & BF_SNAP_TLS_F_KERNEL;
}

uint64_t bf_tls_server_hash(const uint8_t *snapshot, size_t len)
{
    struct bf_reader r = {.buf = snapshot, .len = len};
    uint64_t hash = 0;
    while (r.at < r.len && !r.failed) {
        uint16_t tag = bf_get_u16(&r);
        if (tag == BF_SNAP_END)
            break;
        struct bf_bytes value = bf_get_str32(&r);
        if (!r.failed && is_tls_record(tag))
            hash = XXH3_64bits_withSeed(value.at, value.len, hash + tag) | 1u;
    }
    return hash;
}
