/* Certificates made on the spot, a snapshot of them, and a pump between two sessions. For tests of
 * tls/. */
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/cursor.h"
#include "tls/tls.h"

#define TF_PEM_BYTES 8192

struct tf_cert {
    X509 *cert;
    EVP_PKEY *key;
    char cert_pem[TF_PEM_BYTES];
    char key_pem[TF_PEM_BYTES];
};

static inline size_t tf_pem_read(BIO *bio, char *out)
{
    int n = BIO_read(bio, out, TF_PEM_BYTES - 1);
    out[n > 0 ? n : 0] = '\0';
    BIO_free(bio);
    return n > 0 ? (size_t)n : 0;
}

/* |san|: "DNS:a,DNS:b" or NULL; |ca|: signs it, NULL: itself. |rsa|: RSA-2048, else P-256. */
static inline struct tf_cert tf_cert_make(const char *name, const char *san,
                                          const struct tf_cert *ca, bool rsa)
{
    struct tf_cert c = {.key = rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256"), .cert = X509_new()};
    X509_NAME *subject = X509_get_subject_name(c.cert);
    BIO *bio;
    X509_set_version(c.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(c.cert), rand() + 1);
    X509_gmtime_adj(X509_getm_notBefore(c.cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(c.cert), 86400);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0);
    X509_set_issuer_name(c.cert, ca ? X509_get_subject_name(ca->cert) : subject);
    X509_set_pubkey(c.cert, c.key);
    X509_EXTENSION *ext = NULL;
    if (san)
        ext = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, san);
    else if (!ca)
        ext = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
    if (ext)
        X509_add_ext(c.cert, ext, -1);
    X509_EXTENSION_free(ext);
    X509_sign(c.cert, ca ? ca->key : c.key, EVP_sha256());
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, c.cert);
    tf_pem_read(bio, c.cert_pem);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, c.key, NULL, NULL, 0, NULL, NULL);
    tf_pem_read(bio, c.key_pem);
    return c;
}

static inline void tf_cert_free(struct tf_cert *c)
{
    X509_free(c->cert);
    EVP_PKEY_free(c->key);
}

static inline struct bf_bytes tf_text(const char *text)
{
    return (struct bf_bytes){.at = text, .len = strlen(text)};
}

/* ---- snapshots ---- */

struct tf_snapshot {
    uint8_t bytes[65536];
    struct bf_writer w;
};

static inline void tf_snapshot_start(struct tf_snapshot *s)
{
    s->w = (struct bf_writer){.buf = s->bytes, .cap = sizeof(s->bytes)};
}

static inline void tf_put(struct tf_snapshot *s, enum bf_snapshot_tag tag,
                          const struct bf_writer *v)
{
    bf_put_u16(&s->w, (uint16_t)tag);
    bf_put_str32(&s->w, (struct bf_bytes){.at = (const char *)v->buf, .len = v->len});
}

/* |name|: one name, or NULL for those of the certificate. */
static inline void tf_put_cert(struct tf_snapshot *s, const char *cert, const char *key,
                               const char *name)
{
    static uint8_t bytes[2 * TF_PEM_BYTES + 300];
    struct bf_writer v = {.buf = bytes, .cap = sizeof(bytes)};
    bf_put_str32(&v, tf_text(cert));
    bf_put_str32(&v, tf_text(key));
    bf_put_u8(&v, name ? 1 : 0);
    if (name)
        bf_put_str16(&v, tf_text(name));
    tf_put(s, BF_SNAP_TLS_CERT, &v);
}

static inline void tf_put_ticket(struct tf_snapshot *s, uint8_t fill)
{
    uint8_t bytes[8 + BF_SNAP_TICKET_KEY_BYTES];
    struct bf_writer v = {.buf = bytes, .cap = sizeof(bytes)};
    bf_put_u64(&v, 1);
    for (unsigned i = 0; i < BF_SNAP_TICKET_KEY_BYTES; i++)
        bf_put_u8(&v, fill);
    tf_put(s, BF_SNAP_TLS_TICKET, &v);
}

static inline void tf_put_options(struct tf_snapshot *s, uint8_t flags, const char *ca)
{
    uint8_t bytes[TF_PEM_BYTES + 8];
    struct bf_writer v = {.buf = bytes, .cap = sizeof(bytes)};
    bf_put_u8(&v, flags);
    bf_put_str32(&v, tf_text(ca ? ca : ""));
    tf_put(s, BF_SNAP_TLS_OPTIONS, &v);
}

/* ---- two sessions ---- */

/* One side with what waits to travel to the other, and the plaintext it got. */
struct tf_side {
    struct bf_tls_engine *engine;
    struct bf_tls_session s;
    uint8_t out[65536];
    size_t out_len;
    uint8_t plain[65536];
    size_t plain_len;
    int rc;
};

/* Feeds |len| bytes; the side's output grows. */
static inline void tf_feed(struct tf_side *side, const uint8_t *in, size_t len)
{
    struct bf_tls_io io = {.in = in,
                           .in_len = len,
                           .out = side->out + side->out_len,
                           .out_cap = sizeof(side->out) - side->out_len};
    do {
        side->rc = bf_tls_read(side->engine, &side->s, &io, side->plain + side->plain_len,
                               sizeof(side->plain) - side->plain_len);
        if (side->rc > 0)
            side->plain_len += (size_t)side->rc;
    } while (side->rc > 0);
    side->out_len += io.out_len;
}

/* Carries what waits at |from| to |to|, in pieces of |piece| bytes (0: all at once). */
static inline void tf_carry(struct tf_side *from, struct tf_side *to, size_t piece)
{
    static uint8_t wire[65536];
    size_t len = from->out_len;
    memcpy(wire, from->out, len);
    from->out_len = 0;
    for (size_t at = 0; at < len;) {
        size_t n = piece && piece < len - at ? piece : len - at;
        /* an exact copy, so that a sanitizer sees reads past its end */
        uint8_t *copy = malloc(n);
        memcpy(copy, wire + at, n);
        tf_feed(to, copy, n);
        free(copy);
        at += n;
    }
}

/* Until neither side has anything to say. Returns whether both are open. */
static inline bool tf_shake(struct tf_side *client, struct tf_side *server, size_t piece)
{
    if (client->s.state == BF_TLS_HANDSHAKE && client->s.handshake_bytes == 0)
        tf_feed(client, NULL, 0);
    for (int i = 0; i < 10 && (client->out_len || server->out_len); i++) {
        tf_carry(client, server, piece);
        tf_carry(server, client, piece);
    }
    return client->s.state == BF_TLS_OPEN && server->s.state == BF_TLS_OPEN;
}

static inline int tf_write(struct tf_side *side, const void *bytes, size_t len)
{
    struct bf_tls_io io = {.out = side->out + side->out_len,
                           .out_cap = sizeof(side->out) - side->out_len};
    int rc = bf_tls_write(side->engine, &side->s, &io, bytes, len);
    side->out_len += io.out_len;
    return rc;
}
