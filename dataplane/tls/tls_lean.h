/*
 * Server sessions of TLS 1.3 without OpenSSL's objects (option tls.lean): an open connection keeps
 * only two traffic secrets with their keys, IVs and sequence numbers, and the part of a record that
 * has come so far. RFC 8446 sections 4.6.3, 5 and 6. Private to tls/, and for its tests; all others
 * come by bf_tls_read, bf_tls_write and bf_tls_close, which choose. Owner: the session's engine.
 */
#pragma once

#include <openssl/ssl.h>

#include "tls/tls_impl.h"
#include "tls/tls_record.h"

/* Records under one key of ours before it is renewed: AES-GCM allows 2^24.5 (RFC 8446 section 5.5);
 * the KeyUpdate is one of them. */
#define BF_LEAN_RECORDS_MAX ((1u << 24) - 1u)
/* Records in a row that bring nothing (empty, KeyUpdate, warnings) and cost us work: as OpenSSL. */
#define BF_LEAN_IDLE_RECORDS_MAX 32u
/* A KeyUpdate: type, length, request_update. */
#define BF_LEAN_KEY_UPDATE_BYTES 5u

struct bf_tls_lean {
    struct bf_rec_keys in, out;
    uint8_t *body;      /* of a record that has come in part: exactly its bytes; else NULL */
    uint32_t waiting;   /* plaintext in the engine's buffer that the caller has not taken */
    uint32_t held;      /* of the record: bytes of the header and of |body| that have come */
    uint16_t body_len;  /* as the header says */
    uint8_t idle;       /* records in a row that brought nothing */
    uint8_t update_len; /* of a KeyUpdate that comes in pieces */
    uint8_t header[BF_REC_HEADER_BYTES];
    uint8_t update[BF_LEAN_KEY_UPDATE_BYTES];
    uint8_t in_secret_len, out_secret_len;
    bool owes_update; /* the peer wants ours, in front of our next data */
    bool is_closed;   /* close_notify was said */
    bool is_kernel;   /* the kernel seals: |out| has no key any more, its sequence is a bound */
    bool is_resumed;  /* for bf_tls_info */
    bool has_peer_cert;
    bool has_alpn;
};
/* P4's stretch is 1 KB a connection with everything. */
_Static_assert(sizeof(struct bf_tls_lean) <= 320, "a connection's keys are small");

/* Secrets are wanted from |context|'s handshakes. */
void bf_lean_prepare(SSL_CTX *context);
/* A place for the secrets of |ssl|'s handshake: it may become lean. False: no memory. */
bool bf_lean_begin(SSL *ssl);
/* What bf_lean_begin gave, or NULL. */
struct bf_tls_lean *bf_lean_of(const SSL *ssl);
void bf_lean_free(struct bf_tls_lean *lean);
/*
 * The handshake of s->ssl is over, nothing after it was read, and |said| are the bytes that its
 * last step wrote: the tickets, encrypted with the key that we go on with. Frees s->ssl and the
 * session is lean; or, if it cannot be (TLS 1.2), leaves the SSL in place, without lean.
 */
void bf_lean_switch(struct bf_tls_session *s, const uint8_t *said, size_t len);

/* As bf_tls_read, bf_tls_write, bf_tls_close, bf_tls_info. */
int bf_lean_read(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io,
                 uint8_t *plain, size_t cap);
int bf_lean_write(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io,
                  const uint8_t *plain, size_t len);
void bf_lean_close(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io);
void bf_lean_info(const struct bf_tls_session *s, struct bf_tls_info *ret);
