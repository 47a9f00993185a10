/*
 * Kernel TLS, the sending half (Linux, net/tls; Documentation/networking/tls.rst): a connected
 * socket is given the keys of one direction, and what is sent on it leaves as records that the
 * kernel makes. Receiving stays with the caller. Sockets are direct descriptors, so the keys go by
 * socket commands of io_uring (Linux 6.7).
 *
 * Knows neither handshakes nor sessions: whoever has keys describes them here. Before Linux 6.14
 * the kernel cannot exchange a key once it has one; we never exchange it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "belfry/base/bug.h"

struct io_uring_sqe;

/* Keys of one direction of TLS 1.3 (RFC 8446 section 7.3). */
struct bf_ktls_keys {
    uint16_t suite; /* as the handshake names it: 0x1301 ... */
    const uint8_t *key;
    const uint8_t *iv; /* 12 bytes */
    uint64_t sequence; /* of the next record */
};

/* The longest of the kernel's structs tls12_crypto_info_*. */
#define BF_KTLS_INFO_BYTES 56u

/* What is handed to the kernel. It is secret: whoever has used it wipes it. */
struct bf_ktls_info {
    _Alignas(8) uint8_t bytes[BF_KTLS_INFO_BYTES];
    uint32_t len; /* 0: none */
};

/* Describes |keys| as the kernel wants them. False: a cipher that it has no name for. */
bool bf_ktls_info_set(struct bf_ktls_info *ret, const struct bf_ktls_keys *keys);

/* An alert on its way: a message, its content, and the record type beside it. Not to be moved. */
struct bf_ktls_alert {
    struct msghdr message;
    struct iovec content;
    _Alignas(8) uint8_t control[CMSG_SPACE(1)];
    uint8_t bytes[2];
};

/* |bytes|: level and description (RFC 8446 section 6). */
void bf_ktls_alert_set(struct bf_ktls_alert *ret, const uint8_t bytes[2]);

/* Requests, in the order in which a socket needs them; flags and names are the caller's. What they
 * point to stays until they were submitted. */
void bf_ktls_prep_ulp(struct io_uring_sqe *sqe, int file);
void bf_ktls_prep_tx(struct io_uring_sqe *sqe, int file, const struct bf_ktls_info *info);
void bf_ktls_prep_alert(struct io_uring_sqe *sqe, int file, const struct bf_ktls_alert *alert);

/* The bit of a suite in what bf_ktls_probe returns. */
#define BF_KTLS_SUITE_FIRST 0x1301u
#define BF_KTLS_SUITES      3u
static inline uint32_t bf_ktls_bit(uint16_t suite)
{
    uint32_t i = (uint32_t)suite - BF_KTLS_SUITE_FIRST;
    return i < BF_KTLS_SUITES ? 1u << i : 0;
}

/*
 * Whether all of this works here: for each suite a connection over loopback is switched as a
 * worker does it and sends data and an alert, and the other end looks at the records. Returns the
 * bits of the suites that passed, or, if none did, the negative errno of the first: -ENOENT where
 * the kernel has no TLS at all. Blocks, and may make the kernel load modules (tls, ciphers), so
 * that no worker does: start of the process only, any thread.
 */
int bf_ktls_probe(void);
