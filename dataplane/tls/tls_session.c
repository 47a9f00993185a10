/*
 * Sessions: OpenSSL with one BIO for all of them, whose input and output are the windows of the
 * call that runs. A session is given the BIO at the start of a call and loses it at the end.
 */
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "tls/tls_lean.h"

/* ---- engine ---- */

static int bio_read(BIO *bio, char *to, int len)
{
    const struct bf_tls_engine *engine = BIO_get_data(bio);
    struct bf_tls_io *io = engine->io;
    BIO_clear_retry_flags(bio);
    size_t left = io->in_len - io->in_at;
    if (left == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t n = (size_t)len < left ? (size_t)len : left;
    memcpy(to, io->in + io->in_at, n);
    io->in_at += n;
    return (int)n;
}

/* All or nothing: a caller without room has made a mistake, and the session ends. */
static int bio_write(BIO *bio, const char *from, int len)
{
    const struct bf_tls_engine *engine = BIO_get_data(bio);
    struct bf_tls_io *io = engine->io;
    BIO_clear_retry_flags(bio);
    if (len <= 0 || (size_t)len > io->out_cap - io->out_len)
        return -1;
    memcpy(io->out + io->out_len, from, (size_t)len);
    io->out_len += (size_t)len;
    return len;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

int bf_tls_engine_create(struct bf_tls_engine **ret)
{
    struct bf_tls_engine *e = calloc(1, sizeof(*e));
    if (!e)
        return BF_ERR_NO_MEMORY;
    e->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "belfry");
    if (!e->method || BIO_meth_set_read(e->method, bio_read) != 1 ||
        BIO_meth_set_write(e->method, bio_write) != 1 ||
        BIO_meth_set_ctrl(e->method, bio_ctrl) != 1 || !(e->bio = BIO_new(e->method))) {
        bf_tls_engine_destroy(e);
        return BF_ERR_NO_MEMORY;
    }
    if (bf_rec_ciphers_init(&e->ciphers) != 0) {
        bf_tls_engine_destroy(e);
        return BF_ERR_NO_MEMORY;
    }
    e->records_max = BF_LEAN_RECORDS_MAX;
    BIO_set_data(e->bio, e);
    BIO_set_init(e->bio, 1);
    *ret = e;
    return 0;
}

void bf_tls_engine_wear(struct bf_tls_engine *engine, uint32_t records_max)
{
    engine->records_max = records_max;
}

void bf_tls_engine_destroy(struct bf_tls_engine *engine)
{
    if (!engine)
        return;
    BIO_free(engine->bio);
    BIO_meth_free(engine->method);
    bf_rec_ciphers_fini(&engine->ciphers);
    OPENSSL_cleanse(engine->plain, sizeof(engine->plain));
    free(engine);
}

static void attach(struct bf_tls_engine *engine, SSL *ssl, struct bf_tls_io *io)
{
    engine->io = io;
    BIO_up_ref(engine->bio);
    BIO_up_ref(engine->bio);
    SSL_set0_rbio(ssl, engine->bio);
    SSL_set0_wbio(ssl, engine->bio);
    ERR_clear_error();
}

static void detach(struct bf_tls_engine *engine, SSL *ssl)
{
    SSL_set0_rbio(ssl, NULL);
    SSL_set0_wbio(ssl, NULL);
    engine->io = NULL;
}

/* ---- errors ---- */

const char *bf_tls_error_text(enum bf_tls_error error)
{
    static const char *const texts[BF_TLS_E_COUNT] = {
        [BF_TLS_E_NONE] = "no error",
        [BF_TLS_E_NOT_TLS] = "not TLS",
        [BF_TLS_E_HTTP] = "a plain HTTP request",
        [BF_TLS_E_VERSION] = "no protocol version in common",
        [BF_TLS_E_CIPHER] = "no cipher, group or signature in common",
        [BF_TLS_E_ALPN] = "no application protocol in common",
        [BF_TLS_E_CERT] = "the peer's certificate is missing or not trusted",
        [BF_TLS_E_RECORD] = "a bad record",
        [BF_TLS_E_ALERT] = "the peer gave up with an alert",
        [BF_TLS_E_OVERSIZE] = "the handshake is too long",
        [BF_TLS_E_PROTOCOL] = "a protocol error",
        [BF_TLS_E_INTERNAL] = "out of memory",
    };
    return error < BF_TLS_E_COUNT ? texts[error] : "?";
}

static enum bf_tls_error error_of(unsigned long code)
{
    static const struct {
        int reason;
        enum bf_tls_error error;
    } known[] = {
        {SSL_R_HTTP_REQUEST, BF_TLS_E_HTTP},
        {SSL_R_HTTPS_PROXY_REQUEST, BF_TLS_E_HTTP},
        {SSL_R_WRONG_VERSION_NUMBER, BF_TLS_E_NOT_TLS},
        {SSL_R_UNSUPPORTED_PROTOCOL, BF_TLS_E_VERSION},
        {SSL_R_NO_PROTOCOLS_AVAILABLE, BF_TLS_E_VERSION},
        {SSL_R_VERSION_TOO_LOW, BF_TLS_E_VERSION},
        {SSL_R_NO_SHARED_CIPHER, BF_TLS_E_CIPHER},
        {SSL_R_NO_SUITABLE_KEY_SHARE, BF_TLS_E_CIPHER},
        {SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, BF_TLS_E_CIPHER},
        {SSL_R_NO_APPLICATION_PROTOCOL, BF_TLS_E_ALPN},
        {SSL_R_CERTIFICATE_VERIFY_FAILED, BF_TLS_E_CERT},
        {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, BF_TLS_E_CERT},
        {SSL_R_EXCESSIVE_MESSAGE_SIZE, BF_TLS_E_OVERSIZE},
        {SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, BF_TLS_E_RECORD},
        {SSL_R_BAD_RECORD_TYPE, BF_TLS_E_RECORD},
        {SSL_R_ENCRYPTED_LENGTH_TOO_LONG, BF_TLS_E_RECORD},
        {SSL_R_DATA_LENGTH_TOO_LONG, BF_TLS_E_RECORD},
        {SSL_R_PACKET_LENGTH_TOO_LONG, BF_TLS_E_RECORD},
        {SSL_R_RECORD_TOO_SMALL, BF_TLS_E_RECORD},
    };
    int reason = ERR_GET_REASON(code);
    if (reason == ERR_R_MALLOC_FAILURE)
        return BF_TLS_E_INTERNAL;
    if (ERR_GET_LIB(code) != ERR_LIB_SSL)
        return BF_TLS_E_PROTOCOL;
    if (reason >= SSL_AD_REASON_OFFSET)
        return BF_TLS_E_ALERT;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i].reason == reason)
            return known[i].error;
    return BF_TLS_E_PROTOCOL;
}

int bf_tls_failed(struct bf_tls_session *s, enum bf_tls_error error)
{
    s->state = BF_TLS_FAILED;
    s->error = (uint8_t)error;
    s->is_partial = false;
    ERR_clear_error();
    return BF_ERR_MALFORMED;
}

/* ---- sessions ---- */

int bf_tls_accept(struct bf_tls_engine *engine, const struct bf_tls_server *server,
                  struct bf_tls_session *ret)
{
    SSL *ssl = SSL_new(server->contexts[0]);
    (void)engine;
    if (!ssl)
        return BF_ERR_NO_MEMORY;
    if ((server->flags & BF_SNAP_TLS_F_LEAN) && !bf_lean_begin(ssl)) {
        SSL_free(ssl);
        return BF_ERR_NO_MEMORY;
    }
    SSL_set_accept_state(ssl);
    *ret = (struct bf_tls_session){.ssl = ssl, .state = BF_TLS_HANDSHAKE, .is_server = true};
    return 0;
}

void bf_tls_free(struct bf_tls_session *s)
{
    struct bf_tls_lean *lean = s->is_lean ? s->lean : NULL;
    if (!s->is_lean && s->ssl) {
        lean = bf_lean_of(s->ssl);
        /* else OpenSSL takes the ticket for that of a connection which was cut, and never resumes
         * it */
        SSL_set_shutdown(s->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(s->ssl);
    }
    bf_lean_free(lean);
    *s = (struct bf_tls_session){0};
}

/* The key exchange's two keys, 3.4 KB with P-256, which OpenSSL keeps as long as the session and
 * needs no more. They cannot be taken from it, but emptied. */
static void forget_exchange(SSL *ssl)
{
    EVP_PKEY *key;
    if (SSL_get_tmp_key(ssl, &key)) {
        (void)EVP_PKEY_set_type(key, EVP_PKEY_X25519);
        EVP_PKEY_free(key);
    }
    if (SSL_get_peer_tmp_key(ssl, &key)) {
        (void)EVP_PKEY_set_type(key, EVP_PKEY_X25519);
        EVP_PKEY_free(key);
    }
}

static uint32_t handshake_bytes_max(const struct bf_tls_session *s)
{
    /* a server's flight has its chain in it, as has that of a client which is asked for one */
    bool certificates = !s->is_server || SSL_get_verify_mode(s->ssl) != SSL_VERIFY_NONE;
    return certificates ? BF_TLS_CLIENT_CERT_BYTES_MAX : BF_TLS_HELLO_BYTES_MAX;
}

/* What a read that gave no plaintext means. */
static int read_ended(struct bf_tls_session *s, struct bf_tls_io *io, int result)
{
    switch (SSL_get_error(s->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        s->is_partial = s->state == BF_TLS_OPEN && SSL_has_pending(s->ssl);
        return 0;
    case SSL_ERROR_ZERO_RETURN:
        s->state = BF_TLS_ENDED;
        s->is_partial = false;
        io->in_at = io->in_len;
        return 0;
    case SSL_ERROR_SSL:
        return bf_tls_failed(s,
                             error_of(ERR_peek_last_error())); /* the first may be the cipher's */
    default:                                                   /* no room for the output */
        return bf_tls_failed(s, BF_TLS_E_INTERNAL);
    }
}

/* Whether the handshake is over; counts what it has read. */
static bool handshake_went_on(struct bf_tls_session *s, size_t bytes)
{
    s->handshake_bytes += (uint32_t)bytes;
    if (!SSL_is_init_finished(s->ssl))
        return false;
    s->state = BF_TLS_OPEN;
    forget_exchange(s->ssl);
    return true;
}

static int read_by_openssl(struct bf_tls_engine *engine, struct bf_tls_session *s,
                           struct bf_tls_io *io, uint8_t *plain, size_t cap)
{
    size_t before = io->in_at;
    attach(engine, s->ssl, io);
    int n = SSL_read(s->ssl, plain, cap > INT32_MAX ? INT32_MAX : (int)cap);
    if (s->state == BF_TLS_HANDSHAKE)
        (void)handshake_went_on(s, io->in_at - before);
    int rc = n > 0 ? n : read_ended(s, io, n);
    if (s->state == BF_TLS_HANDSHAKE && s->handshake_bytes > handshake_bytes_max(s))
        rc = bf_tls_failed(s, BF_TLS_E_OVERSIZE);
    detach(engine, s->ssl);
    return rc;
}

/*
 * A step of the handshake of a session that becomes lean. It uses SSL_do_handshake, not SSL_read:
 * that stops after the client's Finished, with our tickets written, and OpenSSL reads one record at
 * a time. So nothing has been read that is encrypted with the key that we go on with.
 */
static int shake_to_lean(struct bf_tls_engine *engine, struct bf_tls_session *s,
                         struct bf_tls_io *io)
{
    size_t before = io->in_at, said = io->out_len;
    attach(engine, s->ssl, io);
    int n = SSL_do_handshake(s->ssl);
    bool is_over = handshake_went_on(s, io->in_at - before);
    int rc = n == 1 ? 0 : read_ended(s, io, n);
    if (!is_over && rc == 0 && s->handshake_bytes > handshake_bytes_max(s))
        rc = bf_tls_failed(s, BF_TLS_E_OVERSIZE);
    detach(engine, s->ssl);
    if (is_over && n == 1)
        bf_lean_switch(s, io->out + said, io->out_len - said);
    return rc;
}

int bf_tls_read(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io,
                uint8_t *plain, size_t cap)
{
    if (s->state == BF_TLS_ENDED) {
        io->in_at = io->in_len; /* bytes after close_notify are ignored */
        return 0;
    }
    if (!s->ssl || s->state == BF_TLS_FAILED)
        return BF_ERR_MALFORMED;
    if (s->state == BF_TLS_HANDSHAKE && bf_lean_of(s->ssl)) {
        int rc = shake_to_lean(engine, s, io);
        if (rc != 0 || s->state != BF_TLS_OPEN)
            return rc;
    }
    return s->is_lean ? bf_lean_read(engine, s, io, plain, cap)
                      : read_by_openssl(engine, s, io, plain, cap);
}

int bf_tls_write(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io,
                 const uint8_t *plain, size_t len)
{
    if (!s->ssl || (s->state != BF_TLS_OPEN && s->state != BF_TLS_ENDED) ||
        len > BF_TLS_WRITE_BYTES_MAX)
        return BF_ERR_MALFORMED;
    if (s->is_lean)
        return bf_lean_write(engine, s, io, plain, len);
    attach(engine, s->ssl, io);
    int n = SSL_write(s->ssl, plain, (int)len);
    detach(engine, s->ssl);
    return n == (int)len ? 0 : bf_tls_failed(s, BF_TLS_E_INTERNAL);
}

void bf_tls_close(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io)
{
    if (!s->ssl || (s->state != BF_TLS_OPEN && s->state != BF_TLS_ENDED))
        return;
    if (s->is_lean) {
        bf_lean_close(engine, s, io);
        return;
    }
    attach(engine, s->ssl, io);
    (void)SSL_shutdown(s->ssl);
    detach(engine, s->ssl);
    ERR_clear_error();
}

void bf_tls_info(const struct bf_tls_session *s, struct bf_tls_info *ret)
{
    const uint8_t *alpn = NULL;
    unsigned alpn_len = 0;
    *ret = (struct bf_tls_info){0};
    if (!s->ssl)
        return;
    if (s->is_lean) {
        bf_lean_info(s, ret);
        return;
    }
    const char *name = SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name);
    SSL_get0_alpn_selected(s->ssl, &alpn, &alpn_len);
    ret->version = (uint16_t)SSL_version(s->ssl);
    ret->is_resumed = SSL_session_reused(s->ssl) == 1;
    ret->has_peer_cert =
        SSL_get0_peer_certificate(s->ssl) != NULL && SSL_get_verify_result(s->ssl) == X509_V_OK;
    snprintf(ret->alpn, sizeof(ret->alpn), "%.*s", (int)alpn_len, alpn ? (const char *)alpn : "");
    snprintf(ret->cipher, sizeof(ret->cipher), "%s", SSL_get_cipher_name(s->ssl));
    snprintf(ret->server_name, sizeof(ret->server_name), "%s", name ? name : "");
}
