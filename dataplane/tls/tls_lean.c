/* See tls_lean.h. */
#include "tls/tls_lean.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"

#define HANDSHAKE_KEY_UPDATE 24u /* RFC 8446 section 4 */
#define ALERT_FATAL          2u
#define ALERT_WARNING        1u

/* ---- from the handshake ---- */

/* "NAME 64-digits-of-client-random secret" */
static bool secret_of(const char *line, const char *name, uint8_t *to, uint8_t *ret_len)
{
    size_t name_len = strlen(name), len = 0;
    if (strncmp(line, name, name_len) != 0 || line[name_len] != ' ')
        return false;
    const char *hex = strchr(line + name_len + 1, ' ');
    if (!hex || OPENSSL_hexstr2buf_ex(to, BF_REC_SECRET_BYTES, &len, hex + 1, '\0') != 1)
        return false;
    *ret_len = (uint8_t)len;
    return true;
}

static void on_secret(const SSL *ssl, const char *line)
{
    struct bf_tls_lean *lean = bf_lean_of(ssl);
    if (!lean)
        return;
    if (!secret_of(line, "CLIENT_TRAFFIC_SECRET_0", lean->in.secret, &lean->in_secret_len))
        (void)secret_of(line, "SERVER_TRAFFIC_SECRET_0", lean->out.secret, &lean->out_secret_len);
}

void bf_lean_prepare(SSL_CTX *context)
{
    SSL_CTX_set_keylog_callback(context, on_secret);
}

bool bf_lean_begin(SSL *ssl)
{
    struct bf_tls_lean *lean = calloc(1, sizeof(*lean));
    if (lean && SSL_set_app_data(ssl, lean) == 1)
        return true;
    free(lean);
    return false;
}

struct bf_tls_lean *bf_lean_of(const SSL *ssl)
{
    return SSL_get_app_data(ssl);
}

static void record_done(struct bf_tls_lean *lean)
{
    free(lean->body);
    lean->body = NULL;
    lean->held = 0;
}

void bf_lean_free(struct bf_tls_lean *lean)
{
    if (!lean)
        return;
    record_done(lean);
    OPENSSL_cleanse(lean, sizeof(*lean));
    free(lean);
}

/* Records among |said|, whole and of application data: that many the client will count. -1: there
 * is something else. */
static int records_in(const uint8_t *said, size_t len)
{
    int count = 0;
    for (size_t at = 0; at < len; count++) {
        if (len - at < BF_REC_HEADER_BYTES || said[at] != BF_REC_DATA)
            return -1;
        at += BF_REC_HEADER_BYTES + ((size_t)said[at + 3] << 8 | said[at + 4]);
        if (at > len)
            return -1;
    }
    return count;
}

static bool keys_ready(struct bf_tls_lean *lean, enum bf_rec_suite suite, int records)
{
    if (suite == BF_SUITE_NONE || records < 0 || lean->in_secret_len != bf_rec_secret_len(suite) ||
        lean->out_secret_len != bf_rec_secret_len(suite) || !bf_rec_keys_derive(&lean->in, suite) ||
        !bf_rec_keys_derive(&lean->out, suite))
        return false;
    lean->out.sequence = (uint64_t)records;
    return true;
}

void bf_lean_switch(struct bf_tls_session *s, const uint8_t *said, size_t len)
{
    SSL *ssl = s->ssl;
    struct bf_tls_lean *lean = bf_lean_of(ssl);
    const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);
    const uint8_t *alpn = NULL;
    unsigned alpn_len = 0;
    if (SSL_version(ssl) != TLS1_3_VERSION || !cipher || SSL_has_pending(ssl) ||
        !keys_ready(lean, bf_rec_suite_of(SSL_CIPHER_get_protocol_id(cipher)),
                    records_in(said, len))) {
        (void)SSL_set_app_data(ssl, NULL);
        bf_lean_free(lean);
        return;
    }
    SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
    lean->has_alpn = alpn_len > 0;
    lean->is_resumed = SSL_session_reused(ssl) == 1;
    lean->has_peer_cert =
        SSL_get0_peer_certificate(ssl) != NULL && SSL_get_verify_result(ssl) == X509_V_OK;
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* as bf_tls_free */
    SSL_free(ssl);
    s->lean = lean;
    s->is_lean = true;
}

void bf_lean_info(const struct bf_tls_session *s, struct bf_tls_info *ret)
{
    const struct bf_tls_lean *lean = s->lean;
    const char *cipher = bf_rec_suite_text((enum bf_rec_suite)lean->in.suite);
    ret->version = TLS1_3_VERSION;
    ret->is_resumed = lean->is_resumed;
    ret->has_peer_cert = lean->has_peer_cert;
    memcpy(ret->cipher, cipher, strlen(cipher) + 1);
    if (lean->has_alpn)
        memcpy(ret->alpn, BF_TLS_ALPN, sizeof(BF_TLS_ALPN));
}

/* ---- out ---- */

/* Appends a record. False: no room, or OpenSSL has failed. Where the kernel seals, an alert's
 * content, once, and nothing else. */
static bool put(struct bf_tls_engine *engine, struct bf_tls_lean *lean, struct bf_tls_io *io,
                enum bf_rec_type type, const uint8_t *bytes, size_t len)
{
    if (lean->is_kernel) {
        if (type != BF_REC_ALERT || io->out_len > 0 || io->out_cap < len)
            return false;
        memcpy(io->out, bytes, len);
        io->out_len = len;
        return true;
    }
    if (io->out_cap - io->out_len < len + BF_REC_OVERHEAD)
        return false;
    size_t n =
        bf_rec_seal(&engine->ciphers, &lean->out, type, bytes, len, 0, io->out + io->out_len);
    io->out_len += n;
    return n > 0;
}

/* Changes our key: when the peer has asked for it, and before it has encrypted as much as it may.
 */
static bool put_key_update(struct bf_tls_engine *engine, struct bf_tls_lean *lean,
                           struct bf_tls_io *io)
{
    static const uint8_t update[BF_LEAN_KEY_UPDATE_BYTES] = {HANDSHAKE_KEY_UPDATE, 0, 0, 1, 0};
    lean->owes_update = false;
    return put(engine, lean, io, BF_REC_HANDSHAKE, update, sizeof(update)) &&
           bf_rec_keys_update(&lean->out);
}

int bf_lean_write(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io,
                  const uint8_t *plain, size_t len)
{
    struct bf_tls_lean *lean = s->lean;
    bool renew = lean->owes_update || lean->out.sequence >= engine->records_max;
    if (len == 0)
        return 0;
    if (lean->is_closed || (renew && !put_key_update(engine, lean, io)) ||
        !put(engine, lean, io, BF_REC_DATA, plain, len))
        return bf_tls_failed(s, BF_TLS_E_INTERNAL);
    return 0;
}

void bf_lean_close(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io)
{
    static const uint8_t notify[] = {ALERT_WARNING, BF_ALERT_CLOSE_NOTIFY};
    struct bf_tls_lean *lean = s->lean;
    if (!lean->is_closed)
        lean->is_closed = put(engine, lean, io, BF_REC_ALERT, notify, sizeof(notify));
}

static int fail(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io,
                enum bf_rec_alert alert)
{
    struct bf_tls_lean *lean = s->lean;
    const uint8_t bytes[] = {ALERT_FATAL, (uint8_t)alert};
    enum bf_tls_error error = alert == BF_ALERT_INTERNAL_ERROR ? BF_TLS_E_INTERNAL
                              : alert == BF_ALERT_BAD_RECORD_MAC ||
                                      alert == BF_ALERT_RECORD_OVERFLOW ||
                                      alert == BF_ALERT_UNEXPECTED_MESSAGE
                                  ? BF_TLS_E_RECORD
                                  : BF_TLS_E_PROTOCOL;
    lean->waiting = 0;
    record_done(lean);
    if (!lean->is_closed)
        (void)put(engine, lean, io, BF_REC_ALERT, bytes, sizeof(bytes));
    return bf_tls_failed(s, error);
}

/* ---- in ---- */

/* The header of a record has come. */
static enum bf_rec_alert check_header(struct bf_tls_lean *lean)
{
    lean->body_len = (uint16_t)(lean->header[3] << 8 | lean->header[4]);
    if (lean->header[0] != BF_REC_DATA)
        return BF_ALERT_UNEXPECTED_MESSAGE; /* all is protected by now; the version is ignored */
    return lean->body_len > BF_REC_CIPHER_BYTES_MAX ? BF_ALERT_RECORD_OVERFLOW
                                                    : BF_ALERT_CLOSE_NOTIFY;
}

/*
 * Takes input up to the end of a record. Sets *ret_body when it is whole: it is in the input, or in
 * lean->body if it has come in parts; else NULL, and all input is taken.
 */
static enum bf_rec_alert gather(struct bf_tls_lean *lean, struct bf_tls_io *io,
                                const uint8_t **ret_body)
{
    *ret_body = NULL;
    while (lean->held < BF_REC_HEADER_BYTES) {
        if (io->in_at == io->in_len)
            return BF_ALERT_CLOSE_NOTIFY;
        lean->header[lean->held++] = io->in[io->in_at++];
        enum bf_rec_alert alert =
            lean->held == BF_REC_HEADER_BYTES ? check_header(lean) : BF_ALERT_CLOSE_NOTIFY;
        if (alert != BF_ALERT_CLOSE_NOTIFY)
            return alert;
    }
    size_t left = io->in_len - io->in_at, at = lean->held - BF_REC_HEADER_BYTES;
    size_t n = left < lean->body_len - at ? left : lean->body_len - at;
    if (n == lean->body_len) {
        *ret_body = io->in + io->in_at;
    } else if (n > 0) {
        if (!lean->body && !(lean->body = malloc(lean->body_len)))
            return BF_ALERT_INTERNAL_ERROR;
        memcpy(lean->body + at, io->in + io->in_at, n);
        *ret_body = at + n == lean->body_len ? lean->body : NULL;
    }
    io->in_at += n;
    lean->held += (uint32_t)n;
    return BF_ALERT_CLOSE_NOTIFY;
}

/* RFC 8446 section 6; not in pieces. */
static enum bf_rec_alert take_alert(struct bf_tls_session *s, struct bf_tls_io *io,
                                    const uint8_t *bytes, size_t len)
{
    if (len != 2)
        return BF_ALERT_DECODE_ERROR;
    if (bytes[1] == BF_ALERT_USER_CANCELED)
        return BF_ALERT_CLOSE_NOTIFY; /* a close_notify follows it */
    if (bytes[1] == BF_ALERT_CLOSE_NOTIFY) {
        s->state = BF_TLS_ENDED;
        io->in_at = io->in_len;
    } else {
        (void)bf_tls_failed(s, BF_TLS_E_ALERT);
    }
    return BF_ALERT_CLOSE_NOTIFY;
}

/* A KeyUpdate, the one message that a client sends after its Finished (section 4.6.3), perhaps in
 * pieces. Nothing may follow it in its record: that would be under the next key (section 5.1). */
static enum bf_rec_alert take_handshake(struct bf_tls_lean *lean, const uint8_t *bytes, size_t len)
{
    if (len == 0 || bytes[0] != (lean->update_len == 0 ? HANDSHAKE_KEY_UPDATE : bytes[0]) ||
        len > BF_LEAN_KEY_UPDATE_BYTES - lean->update_len)
        return BF_ALERT_UNEXPECTED_MESSAGE;
    memcpy(lean->update + lean->update_len, bytes, len);
    lean->update_len = (uint8_t)(lean->update_len + len);
    if (lean->update_len < BF_LEAN_KEY_UPDATE_BYTES)
        return BF_ALERT_CLOSE_NOTIFY;
    lean->update_len = 0;
    if (lean->update[1] != 0 || lean->update[2] != 0 || lean->update[3] != 1)
        return BF_ALERT_DECODE_ERROR;
    if (lean->update[4] > 1)
        return BF_ALERT_ILLEGAL_PARAMETER;
    if (lean->update[4] == 1)
        lean->owes_update = true; /* however often it asks before we have data: one answer */
    return bf_rec_keys_update(&lean->in) ? BF_ALERT_CLOSE_NOTIFY : BF_ALERT_INTERNAL_ERROR;
}

/* A whole record is there. */
static enum bf_rec_alert take_record(struct bf_tls_engine *engine, struct bf_tls_session *s,
                                     struct bf_tls_io *io, const uint8_t *body)
{
    struct bf_tls_lean *lean = s->lean;
    uint8_t type = BF_REC_NONE;
    size_t len = 0;
    enum bf_rec_alert alert = bf_rec_open(&engine->ciphers, &lean->in, lean->header, body,
                                          lean->body_len, engine->plain, &type, &len);
    record_done(lean);
    if (alert != BF_ALERT_CLOSE_NOTIFY)
        return alert;
    if (type == BF_REC_DATA && len > 0 && lean->update_len == 0) {
        lean->idle = 0;
        lean->waiting = (uint32_t)len;
        engine->plain_of = lean;
        engine->plain_at = 0;
        return BF_ALERT_CLOSE_NOTIFY;
    }
    if (++lean->idle > BF_LEAN_IDLE_RECORDS_MAX)
        return BF_ALERT_UNEXPECTED_MESSAGE;
    if (type == BF_REC_ALERT)
        return take_alert(s, io, engine->plain, len);
    if (type == BF_REC_HANDSHAKE)
        return take_handshake(lean, engine->plain, len);
    return type == BF_REC_DATA && lean->update_len == 0 ? BF_ALERT_CLOSE_NOTIFY
                                                        : BF_ALERT_UNEXPECTED_MESSAGE;
}

static int deliver(struct bf_tls_engine *engine, struct bf_tls_lean *lean, uint8_t *plain,
                   size_t cap)
{
    size_t n = lean->waiting < cap ? lean->waiting : cap;
    memcpy(plain, engine->plain + engine->plain_at, n);
    engine->plain_at += (uint32_t)n;
    lean->waiting -= (uint32_t)n;
    return (int)n;
}

int bf_lean_read(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io,
                 uint8_t *plain, size_t cap)
{
    struct bf_tls_lean *lean = s->lean;
    while (lean->waiting == 0) {
        const uint8_t *body;
        enum bf_rec_alert alert = gather(lean, io, &body);
        if (alert == BF_ALERT_CLOSE_NOTIFY && body)
            alert = take_record(engine, s, io, body);
        if (alert != BF_ALERT_CLOSE_NOTIFY)
            return fail(engine, s, io, alert);
        s->is_partial = lean->held > 0;
        if (s->state == BF_TLS_FAILED)
            return BF_ERR_MALFORMED;
        if (s->state == BF_TLS_ENDED || (!body && lean->waiting == 0))
            return 0;
    }
    if (engine->plain_of != lean) /* its caller read for another meanwhile: the bytes are lost */
        return fail(engine, s, io, BF_ALERT_INTERNAL_ERROR);
    return deliver(engine, lean, plain, cap);
}
