/* What the files of tls/ share. Private to them. */
#pragma once

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "tls/tls.h"
#include "tls/tls_record.h"

/* What we speak inside; RFC 7301. A client that offers other protocols only is refused. */
#define BF_TLS_ALPN "http/1.1"

struct bf_tls_lean;

struct bf_tls_engine {
    BIO_METHOD *method;
    BIO *bio;             /* reads engine->io's input, appends to its output */
    struct bf_tls_io *io; /* of the call that runs */
    /* lean sessions: a record that was opened and not taken yet, and whose it is */
    struct bf_rec_ciphers ciphers;
    const struct bf_tls_lean *plain_of;
    uint32_t plain_at;
    uint32_t records_max; /* under one key of ours; BF_LEAN_RECORDS_MAX, less in tests */
    uint8_t plain[BF_REC_CIPHER_BYTES_MAX];
};

/* Lives as long as its first context does, so as long as any session made from it. */
struct bf_tls_server {
    uint32_t count;
    uint32_t name_count;
    uint32_t ticket_count;
    uint32_t flags; /* BF_SNAP_TLS_F_* */
    bool has_client_ca;
    SSL_CTX *contexts[BF_TLS_CERTS_MAX];
    struct {
        uint8_t context;
        uint8_t len;
        char text[254]; /* lower case; a first label "*" stands for any one */
    } names[BF_TLS_NAMES_MAX];
    uint8_t tickets[BF_SNAP_TICKET_KEYS_MAX][BF_SNAP_TICKET_KEY_BYTES];
};

struct bf_tls_client {
    SSL_CTX *context;
    bool no_verify;
};

/* tls_session.c: the session has FAILED. Returns BF_ERR_MALFORMED. */
int bf_tls_failed(struct bf_tls_session *s, enum bf_tls_error error);

/* tls_names.c: index of the context whose names say |host|, 0 (the default) when none does. */
uint32_t bf_tls_names_find(const struct bf_tls_server *server, const char *host);
/* Adds a name; false: no room, or not a host name. */
bool bf_tls_names_add(struct bf_tls_server *server, uint32_t context, const char *text, size_t len);

/* tls_pem.c: what both kinds of context load. 0, or BF_ERR_MALFORMED with a line in |err|. */
int bf_tls_pem_chain(SSL_CTX *context, struct bf_bytes pem, char *err, size_t err_len);
int bf_tls_pem_key(SSL_CTX *context, struct bf_bytes pem, char *err, size_t err_len);
int bf_tls_pem_trust(SSL_CTX *context, struct bf_bytes pem, bool is_server, char *err,
                     size_t err_len);
/* What both kinds of context are set to. */
bool bf_tls_common_settings(SSL_CTX *context);
