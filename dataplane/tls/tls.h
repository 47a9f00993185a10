/*
 * TLS 1.3 and 1.2 (RFC 8446, 5246) over OpenSSL, without I/O: ciphertext in, plaintext and
 * ciphertext out, into buffers of the caller. Three objects:
 *
 *   bf_tls_engine   one a worker: the pair of BIOs that every session borrows while a call runs, so
 *                   that an idle session holds none
 *   bf_tls_server,  contexts made from a configuration: certificates by SNI, ticket keys, client
 * CA; bf_tls_client   and for connections that we open: CA, own certificate, ALPN. Replacing one
 * leaves the sessions made from it alone: OpenSSL counts references bf_tls_session  one a
 * connection, in the caller's memory
 *
 * Errors are caused by peers and frequent, so they are codes with counters, never log lines.
 * OpenSSL allocates inside: ~14 KB a session that idles, ~50 KB while it shakes hands. With
 * BF_SNAP_TLS_F_LEAN a server's session of TLS 1.3 keeps ~260 bytes once it is open. One thread an
 * engine; contexts may be shared by threads once made.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/shm/snapshot.h"

/* A record's plaintext (RFC 8446 section 5.1), so the most that one bf_tls_write takes. */
#define BF_TLS_WRITE_BYTES_MAX 16384u
/* What a record adds: 5 header, 1 type, 16 tag; TLS 1.2 has 8 of nonce. And a KeyUpdate, answered
 * in front of data: a record of 5 bytes of its own. */
#define BF_TLS_RECORD_OVERHEAD 64u
/* Room that the output of a handshake step needs: the server's flight is at most
 * BF_TLS_CHAIN_BYTES_MAX of certificates and ~1 KB; a client's as much. */
#define BF_TLS_FLIGHT_BYTES_MAX 16384u
/* Certificates of a chain, DER. Chains have 2-6 KB. Larger: refused when configured. */
#define BF_TLS_CHAIN_BYTES_MAX 12288u
/* What a peer may send before the handshake is over. A ClientHello has 0.3-2 KB (post-quantum
 * shares and a ticket included); with client certificates a chain comes too. More:
 * BF_TLS_E_OVERSIZE. */
#define BF_TLS_HELLO_BYTES_MAX       16384u
#define BF_TLS_CLIENT_CERT_BYTES_MAX 24576u
/* Certificates of a node, each a context of ~100 KB a worker. */
#define BF_TLS_CERTS_MAX 16u
/* Names of all certificates of a node. */
#define BF_TLS_NAMES_MAX 256u

enum bf_tls_state {
    BF_TLS_NONE = 0,
    BF_TLS_HANDSHAKE = 1,
    BF_TLS_OPEN = 2,
    BF_TLS_ENDED = 3,  /* the peer said close_notify; we may still write */
    BF_TLS_FAILED = 4, /* an alert may wait in the output; nothing else is possible */
};

/* Why a session failed. */
enum bf_tls_error {
    BF_TLS_E_NONE = 0,
    BF_TLS_E_NOT_TLS = 1,  /* other bytes than TLS */
    BF_TLS_E_HTTP = 2,     /* a plain HTTP request */
    BF_TLS_E_VERSION = 3,  /* no version in common */
    BF_TLS_E_CIPHER = 4,   /* no cipher, group or signature in common */
    BF_TLS_E_ALPN = 5,     /* no protocol in common */
    BF_TLS_E_CERT = 6,     /* the peer's certificate: none, or not verified */
    BF_TLS_E_RECORD = 7,   /* a record that does not decrypt, or is too long */
    BF_TLS_E_ALERT = 8,    /* the peer sent a fatal alert */
    BF_TLS_E_OVERSIZE = 9, /* a handshake of too many bytes */
    BF_TLS_E_PROTOCOL = 10,
    BF_TLS_E_INTERNAL = 11, /* memory, or no room for the output */
    BF_TLS_E_COUNT
};
const char *bf_tls_error_text(enum bf_tls_error error);

struct bf_tls_engine;
struct bf_tls_server;
struct bf_tls_client;
struct bf_tls_lean;
struct bf_tls_ticket; /* what a client needs to resume */

/* Treat as opaque but for |state| and |error|. Zeroed memory is BF_TLS_NONE. */
struct bf_tls_session {
    union {
        void *ssl;
        struct bf_tls_lean *lean; /* where is_lean */
    };
    uint32_t handshake_bytes; /* received before it was over */
    uint8_t state;            /* enum bf_tls_state */
    uint8_t error;            /* enum bf_tls_error */
    bool is_server : 1;
    bool is_partial : 1; /* holds a part of a record, so up to 16 KB more */
    bool is_lean : 1;    /* keys only (BF_SNAP_TLS_F_LEAN), OpenSSL's session is gone */
};
_Static_assert(sizeof(struct bf_tls_session) == 16, "every slot of a worker has one");

/* One call's bytes. The caller sets |in| and |out|; the call moves in_at and out_len on. */
struct bf_tls_io {
    const uint8_t *in;
    size_t in_len;
    size_t in_at; /* taken so far */
    uint8_t *out;
    size_t out_cap;
    size_t out_len; /* written so far */
};

/* ---- engine: start of a worker ---- */

/* 0 or BF_ERR_NO_MEMORY. */
int bf_tls_engine_create(struct bf_tls_engine **ret);
/* For tests: the key of a lean session has to be renewed after this many records. */
void bf_tls_engine_wear(struct bf_tls_engine *engine, uint32_t records_max);
/* All sessions must have been freed before. Accepts NULL. */
void bf_tls_engine_destroy(struct bf_tls_engine *engine);

/* ---- contexts: when a configuration is taken over ---- */

/*
 * Server contexts from the records BF_SNAP_TLS_* of a snapshot. Returns 0; BF_ERR_NOT_FOUND: it has
 * no certificate; BF_ERR_MALFORMED with a line in |err|: a certificate or key that cannot be used.
 * *ret is untouched then.
 */
int bf_tls_server_create(const uint8_t *snapshot, size_t len, struct bf_tls_server **ret, char *err,
                         size_t err_len);
void bf_tls_server_destroy(struct bf_tls_server *server);
/* Whether its sessions are to be handed over to the kernel where it can take them. */
bool bf_tls_server_wants_kernel(const struct bf_tls_server *server);
/* XXH3 of the records that bf_tls_server_create reads, tickets' keys included: an equal value needs
 * no new contexts. 0: there are none. */
uint64_t bf_tls_server_hash(const uint8_t *snapshot, size_t len);

/* The system's CA bundle, read from its file once. NULL: there is none, or no memory. */
struct bf_tls_trust;
struct bf_tls_trust *bf_tls_trust_system(void);
void bf_tls_trust_free(struct bf_tls_trust *trust);

/* What we connect to others with. Texts are borrowed during the call. */
struct bf_tls_client_opts {
    struct bf_bytes ca_pem;     /* trust these alone; empty: |trust| */
    struct bf_tls_trust *trust; /* NULL: the system's CA bundle, read now */
    struct bf_bytes cert_pem;   /* own certificate and chain, empty: none */
    struct bf_bytes key_pem;
    const char *alpn;     /* one protocol, "h2" or "http/1.1"; NULL: none */
    bool no_verify;       /* tests and benchmarks against self-signed servers */
    uint16_t version_max; /* 0: TLS 1.3; 0x0303: TLS 1.2 */
};
/* 0, BF_ERR_MALFORMED with a line in |err|, or BF_ERR_NO_MEMORY. */
int bf_tls_client_create(const struct bf_tls_client_opts *opts, struct bf_tls_client **ret,
                         char *err, size_t err_len);
void bf_tls_client_destroy(struct bf_tls_client *client);

/* ---- sessions ---- */

/* Begin; *ret needs no bf_tls_free after a failure. 0 or BF_ERR_NO_MEMORY. */
int bf_tls_accept(struct bf_tls_engine *engine, const struct bf_tls_server *server,
                  struct bf_tls_session *ret);
/* |host|: for SNI and for the check of the name; |ticket|: of an earlier session, or NULL. The
 * first bf_tls_read, without input, gives the ClientHello. */
int bf_tls_connect(struct bf_tls_engine *engine, const struct bf_tls_client *client,
                   const char *host, const struct bf_tls_ticket *ticket,
                   struct bf_tls_session *ret);
/* Frees the session; nothing is sent to the peer. Allowed in any state, and twice. */
void bf_tls_free(struct bf_tls_session *s);

/*
 * Takes ciphertext, goes on with the handshake, and writes the plaintext that results, at most
 * |cap| bytes. Returns their number. Call again until it returns 0, which means that all input is
 * taken; until then the engine must not read for another session, because it holds what a lean
 * session has not taken yet. BF_ERR_MALFORMED: the session FAILED (s->error). Whatever it returns,
 * io->out_len bytes are to be sent.
 */
int bf_tls_read(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io,
                uint8_t *plain, size_t cap);
/*
 * Encrypts |len| bytes (at most BF_TLS_WRITE_BYTES_MAX) into records appended to io->out, which has
 * room for len + BF_TLS_RECORD_OVERHEAD. 0, or BF_ERR_MALFORMED: the session FAILED.
 */
int bf_tls_write(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io,
                 const uint8_t *plain, size_t len);
/* Writes close_notify, which needs BF_TLS_RECORD_OVERHEAD bytes of room; or nothing if the session
 * cannot send any more. */
void bf_tls_close(struct bf_tls_engine *engine, struct bf_tls_session *s, struct bf_tls_io *io);

/* ---- records by the kernel ----------------------------------------------------------------------
 * A server's session that has become lean may hand the sealing of its records over; it still reads.
 * From then on bf_tls_write fails, and what a failing bf_tls_read puts out is not a record but the
 * content of an alert, for whoever can have the kernel say it.
 */

/* What the kernel needs. Wipe it after use. */
struct bf_tls_kernel_keys {
    uint8_t key[32]; /* as long as the suite wants it */
    uint8_t iv[12];
    uint16_t suite;    /* as the handshake agreed: 0x1301 ... */
    uint64_t sequence; /* of the next record: all records before it were given out */
};
/* Whether the kernel can take over the encryption: not for TLS 1.2, for a client's session, when
 * the peer wants a new key, or after the end. Sets *ret if it can. */
bool bf_tls_kernel_offer(const struct bf_tls_session *s, struct bf_tls_kernel_keys *ret);
/* The kernel has taken the offered key, and nothing was written since: our copy is wiped. */
void bf_tls_kernel_taken(struct bf_tls_session *s);
/* |len| bytes were offered to the socket. They are counted as the smallest number of records that
 * they can be. */
void bf_tls_kernel_sent(struct bf_tls_session *s, size_t len);

/* Whether a session whose key the kernel has may go on; such a key cannot be renewed. */
enum bf_tls_kernel_state {
    BF_TLS_KERNEL_GOOD = 0,
    /* the key has encrypted nearly as much as it may (RFC 8446 section 5.5): the connection ends */
    BF_TLS_KERNEL_WORN = 1,
    /* the peer has asked for a new key: no data may follow (section 4.6.3), only an alert */
    BF_TLS_KERNEL_MUTE = 2,
};
enum bf_tls_kernel_state bf_tls_kernel_state(const struct bf_tls_engine *engine,
                                             const struct bf_tls_session *s);

/* ---- what was agreed; of an OPEN session ---- */

struct bf_tls_info {
    uint16_t version; /* 0x0304, 0x0303 */
    bool is_resumed;
    bool has_peer_cert; /* verified */
    char alpn[16];
    char cipher[40];
    char server_name[256]; /* what SNI said, ""; a lean session has forgotten it */
};
void bf_tls_info(const struct bf_tls_session *s, struct bf_tls_info *ret);
/* A client's ticket, once one has come; NULL: none yet. The caller frees it. */
struct bf_tls_ticket *bf_tls_ticket_take(const struct bf_tls_session *s);
void bf_tls_ticket_free(struct bf_tls_ticket *ticket);
