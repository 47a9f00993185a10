/* See ktls.h. */
#include "io/ktls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#include "io/io_compat.h"

/* glibc names it from 2.38 on. */
#ifndef SOL_TLS
#define SOL_TLS 282
#endif

static const char ulp_name[] = "tls";

/* ---- descriptions ---- */

_Static_assert(sizeof(struct tls12_crypto_info_aes_gcm_128) <= BF_KTLS_INFO_BYTES, "fits");
_Static_assert(sizeof(struct tls12_crypto_info_aes_gcm_256) <= BF_KTLS_INFO_BYTES, "fits");
_Static_assert(sizeof(struct tls12_crypto_info_chacha20_poly1305) <= BF_KTLS_INFO_BYTES, "fits");

static void put_sequence(uint8_t to[8], uint64_t sequence)
{
    for (unsigned i = 0; i < 8; i++)
        to[i] = (uint8_t)(sequence >> (56u - 8u * i));
}

/* Both of AES-GCM: the kernel calls the IV's first four bytes its salt (as RFC 5288 did for
 * TLS 1.2). */
#define SET_GCM(info, keys)                                                                        \
    do {                                                                                           \
        memcpy((info)->salt, (keys)->iv, sizeof((info)->salt));                                    \
        memcpy((info)->iv, (keys)->iv + sizeof((info)->salt), sizeof((info)->iv));                 \
        memcpy((info)->key, (keys)->key, sizeof((info)->key));                                     \
        put_sequence((info)->rec_seq, (keys)->sequence);                                           \
    } while (0)

bool bf_ktls_info_set(struct bf_ktls_info *ret, const struct bf_ktls_keys *keys)
{
    union {
        struct tls_crypto_info head;
        struct tls12_crypto_info_aes_gcm_128 gcm_128;
        struct tls12_crypto_info_aes_gcm_256 gcm_256;
        struct tls12_crypto_info_chacha20_poly1305 chacha;
    } info = {.head.version = TLS_1_3_VERSION};
    ret->len = 0;
    switch (keys->suite) {
    case 0x1301:
        info.head.cipher_type = TLS_CIPHER_AES_GCM_128;
        SET_GCM(&info.gcm_128, keys);
        ret->len = sizeof(info.gcm_128);
        break;
    case 0x1302:
        info.head.cipher_type = TLS_CIPHER_AES_GCM_256;
        SET_GCM(&info.gcm_256, keys);
        ret->len = sizeof(info.gcm_256);
        break;
    case 0x1303: /* no salt: all of the IV is one */
        info.head.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
        memcpy(info.chacha.iv, keys->iv, sizeof(info.chacha.iv));
        memcpy(info.chacha.key, keys->key, sizeof(info.chacha.key));
        put_sequence(info.chacha.rec_seq, keys->sequence);
        ret->len = sizeof(info.chacha);
        break;
    default:
        return false;
    }
    memcpy(ret->bytes, &info, ret->len);
    explicit_bzero(&info, sizeof(info));
    return true;
}

void bf_ktls_alert_set(struct bf_ktls_alert *ret, const uint8_t bytes[2])
{
    *ret = (struct bf_ktls_alert){.bytes = {bytes[0], bytes[1]}};
    ret->content = (struct iovec){.iov_base = ret->bytes, .iov_len = sizeof(ret->bytes)};
    ret->message = (struct msghdr){.msg_iov = &ret->content,
                                   .msg_iovlen = 1,
                                   .msg_control = ret->control,
                                   .msg_controllen = sizeof(ret->control)};
    struct cmsghdr *type = CMSG_FIRSTHDR(&ret->message);
    type->cmsg_level = SOL_TLS;
    type->cmsg_type = TLS_SET_RECORD_TYPE;
    type->cmsg_len = CMSG_LEN(1);
    *CMSG_DATA(type) = 21; /* alert (RFC 8446 section 5.1) */
}

void bf_ktls_prep_ulp(struct io_uring_sqe *sqe, int file)
{
    bf_prep_socket_option(sqe, file, BF_SOCKET_SETSOCKOPT, SOL_TCP, TCP_ULP, ulp_name,
                          sizeof(ulp_name));
}

void bf_ktls_prep_tx(struct io_uring_sqe *sqe, int file, const struct bf_ktls_info *info)
{
    bf_prep_socket_option(sqe, file, BF_SOCKET_SETSOCKOPT, SOL_TLS, TLS_TX, info->bytes, info->len);
}

void bf_ktls_prep_alert(struct io_uring_sqe *sqe, int file, const struct bf_ktls_alert *alert)
{
    io_uring_prep_sendmsg(sqe, file, &alert->message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- probe ---- */

#define PROBE_ENTRIES    4u
#define PROBE_TIMEOUT_MS 1000
/* Of a record: header, type, tag. */
#define RECORD_OVERHEAD 22u

/* A ring with one direct descriptor, as a worker has them, and the other end of its connection. */
struct probe {
    struct io_uring ring;
    int peer;
};

/* Two ends of a connection over loopback. 0 or -errno; then neither is open. */
static int open_pair(int fds[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {.tv_sec = PROBE_TIMEOUT_MS / 1000};
    socklen_t len = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[1] = -1;
    if (listener < 0 || fds[0] < 0 || bind(listener, (struct sockaddr *)&at, len) != 0 ||
        listen(listener, 1) != 0 || getsockname(listener, (struct sockaddr *)&at, &len) != 0 ||
        connect(fds[0], (struct sockaddr *)&at, len) != 0 ||
        (fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0 ||
        setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0) {
        int err = -errno;
        if (listener >= 0)
            (void)close(listener);
        if (fds[0] >= 0)
            (void)close(fds[0]);
        if (fds[1] >= 0)
            (void)close(fds[1]);
        return err;
    }
    (void)close(listener);
    return 0;
}

/* Submits what is queued and returns the first failure among |count| results, else the last. */
static int run(struct io_uring *ring, unsigned count)
{
    struct __kernel_timespec patience = {.tv_sec = PROBE_TIMEOUT_MS / 1000};
    int rc = io_uring_submit(ring), res = 0;
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_cqe *cqe;
        if ((rc = io_uring_wait_cqe_timeout(ring, &cqe, &patience)) != 0)
            return rc;
        if (res >= 0)
            res = cqe->res;
        io_uring_cqe_seen(ring, cqe);
    }
    return res;
}

/* Reads one record and looks at what can be seen without its key. */
static bool is_record_of(int fd, size_t content)
{
    uint8_t bytes[64];
    size_t want = content + RECORD_OVERHEAD;
    BF_BUG_ON(want > sizeof(bytes));
    return recv(fd, bytes, want, MSG_WAITALL) == (ssize_t)want && bytes[0] == 23 && bytes[1] == 3 &&
           bytes[2] == 3 && bytes[3] == 0 && bytes[4] == want - 5;
}

/* Switches and sends, as bf_io_ktls and the others do. 0 or -errno. */
static int try_suite(struct probe *p, uint16_t suite)
{
    static const uint8_t zeros[32], goodbye[2] = {1, 0};
    static const char data[] = "belfry";
    const struct bf_ktls_keys keys = {.suite = suite, .key = zeros, .iv = zeros};
    struct bf_ktls_info info;
    struct bf_ktls_alert alert;
    if (!bf_ktls_info_set(&info, &keys))
        return -EINVAL;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&p->ring);
    bf_ktls_prep_ulp(sqe, 0);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_IO_LINK;
    sqe = io_uring_get_sqe(&p->ring);
    bf_ktls_prep_tx(sqe, 0, &info);
    sqe->flags |= IOSQE_FIXED_FILE;
    int rc = run(&p->ring, 2);
    if (rc < 0)
        return rc;
    sqe = io_uring_get_sqe(&p->ring);
    io_uring_prep_send(sqe, 0, data, sizeof(data), MSG_DONTWAIT | MSG_NOSIGNAL);
    sqe->flags |= IOSQE_FIXED_FILE;
    if ((rc = run(&p->ring, 1)) != (int)sizeof(data))
        return rc < 0 ? rc : -EIO;
    bf_ktls_alert_set(&alert, goodbye);
    sqe = io_uring_get_sqe(&p->ring);
    bf_ktls_prep_alert(sqe, 0, &alert);
    sqe->flags |= IOSQE_FIXED_FILE;
    if ((rc = run(&p->ring, 1)) != (int)sizeof(goodbye))
        return rc < 0 ? rc : -EIO;
    return is_record_of(p->peer, sizeof(data)) && is_record_of(p->peer, sizeof(goodbye)) ? 0
                                                                                         : -EPROTO;
}

static int probe_suite(uint16_t suite)
{
    struct probe p;
    int fds[2];
    int rc = open_pair(fds);
    if (rc != 0)
        return rc;
    p.peer = fds[0];
    /* by a system call first: the kernel loads its module only for whoever may ask for that, and
     * says -ENOENT where there is none */
    if (setsockopt(fds[0], SOL_TCP, TCP_ULP, ulp_name, sizeof(ulp_name)) != 0)
        rc = -errno;
    if (rc == 0)
        rc = io_uring_queue_init(PROBE_ENTRIES, &p.ring, 0);
    if (rc == 0) {
        rc = io_uring_register_files(&p.ring, &fds[1], 1);
        if (rc == 0)
            rc = try_suite(&p, suite);
        io_uring_queue_exit(&p.ring);
    }
    (void)close(fds[0]);
    (void)close(fds[1]);
    return rc;
}

int bf_ktls_probe(void)
{
    int passed = 0, first = 0;
    for (uint16_t i = 0; i < BF_KTLS_SUITES; i++) {
        int rc = probe_suite((uint16_t)(BF_KTLS_SUITE_FIRST + i));
        if (rc == 0)
            passed |= (int)(1u << i);
        else if (first == 0)
            first = rc;
    }
    return passed != 0 ? passed : first;
}
