/* TLS clients and the certificate: see pf_tls.h. */
#include "pf_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "belfry/base/ws_frame.h"
#include "pf_jwt.h"
#include "pf_load.h"
#include "pf_proc.h"
#include "pf_report.h"
#include "pf_ws.h"

#define CLIENTS_MAX   64u
#define HOLD_CLIENTS  8u
#define TOKEN_TTL_S   86400u
#define CONNECT_FRAME "{\"t\":\"connect\",\"device\":\"perf\"}"
/* A server that does not answer for this long has lost us. */
#define ANSWER_MS    10000
#define OPEN_SECONDS 300.0

/* ---- certificate ---- */

void pf_tls_cert_make(struct pf_tls_cert *ret)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);
    snprintf(ret->dir, sizeof(ret->dir), "/tmp/belfry-tls-XXXXXX");
    if (!key || !cert || !mkdtemp(ret->dir))
        pf_die("no certificate can be made");
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"localhost", -1, -1, 0);
    X509_set_issuer_name(cert, name);
    X509_set_pubkey(cert, key);
    X509_sign(cert, key, EVP_sha256());
    snprintf(ret->cert, sizeof(ret->cert), "%s/tls.pem", ret->dir);
    snprintf(ret->key, sizeof(ret->key), "%s/tls.key", ret->dir);
    FILE *cert_file = fopen(ret->cert, "we");
    FILE *key_file = fopen(ret->key, "we");
    if (!cert_file || !key_file || !PEM_write_X509(cert_file, cert) ||
        !PEM_write_PrivateKey(key_file, key, NULL, NULL, 0, NULL, NULL))
        pf_die("cannot write into %s", ret->dir);
    fclose(cert_file);
    fclose(key_file);
    X509_free(cert);
    EVP_PKEY_free(key);
}

void pf_tls_cert_remove(const struct pf_tls_cert *cert)
{
    (void)unlink(cert->cert);
    (void)unlink(cert->key);
    (void)rmdir(cert->dir);
}

void pf_tls_yaml(const struct pf_tls_cert *cert, char *out, size_t cap)
{
    snprintf(out, cap,
             "tls:\n  host: 127.0.0.1\n  port: 0\n  certificates: [{cert: %s, key: %s}]\n",
             cert->cert, cert->key);
}

/* ---- a connection ---- */

static SSL_CTX *client_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context)
        pf_die("no TLS");
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set1_groups_list(context, "P-256");
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY); /* a ticket ends a read */
    return context;
}

static int tcp_open(uint16_t port)
{
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* No TIME_WAIT is left behind. */
static void tcp_reset(int fd)
{
    static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
}

static SSL *tls_open(SSL_CTX *context, int fd, SSL_SESSION *session)
{
    SSL *ssl = SSL_new(context);
    if (!ssl)
        pf_die("out of memory");
    SSL_set_fd(ssl, fd);
    if (session)
        SSL_set_session(ssl, session);
    if (SSL_connect(ssl) == 1)
        return ssl;
    SSL_free(ssl);
    return NULL;
}

static bool wait_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, ANSWER_MS) == 1;
}

/* ---- handshakes ---- */

struct hammer_shared {
    _Atomic uint32_t stop;
    struct {
        _Atomic uint64_t handshakes, failed, wrong;
    } client[CLIENTS_MAX] __attribute__((aligned(64)));
};

/* One connection to its ticket. Returns the session for the next one. */
static SSL_SESSION *shake(SSL_CTX *context, uint16_t port, SSL_SESSION *session, bool *ret_ok,
                          bool *ret_resumed)
{
    uint8_t byte;
    SSL_SESSION *next = NULL;
    int fd = tcp_open(port);
    SSL *ssl = fd >= 0 ? tls_open(context, fd, session) : NULL;
    *ret_ok = ssl && wait_readable(fd);
    if (*ret_ok) {
        *ret_resumed = SSL_session_reused(ssl) == 1;
        (void)SSL_read(ssl, &byte, 1); /* takes the ticket in, and gives up */
        next = SSL_get1_session(ssl);
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    }
    SSL_free(ssl);
    if (fd >= 0)
        tcp_reset(fd);
    return next;
}

static _Noreturn void hammer_child(struct hammer_shared *shared, uint32_t index, uint16_t port,
                                   bool resume)
{
    SSL_CTX *context = client_context();
    SSL_SESSION *session = NULL;
    bool first = true;
    while (atomic_load_explicit(&shared->stop, memory_order_relaxed) == 0) {
        bool ok = false, resumed = false;
        SSL_SESSION *next = shake(context, port, resume ? session : NULL, &ok, &resumed);
        SSL_SESSION_free(session);
        session = next;
        atomic_fetch_add_explicit(ok ? &shared->client[index].handshakes
                                     : &shared->client[index].failed,
                                  1, memory_order_relaxed);
        if (ok && !first && resumed != resume)
            atomic_fetch_add_explicit(&shared->client[index].wrong, 1, memory_order_relaxed);
        first = false;
    }
    _exit(0);
}

static uint64_t sum(const struct hammer_shared *shared, uint32_t clients,
                    struct pf_tls_round *round)
{
    round->handshakes = round->failed = round->not_as_asked = 0;
    for (uint32_t i = 0; i < clients; i++) {
        round->handshakes += atomic_load(&shared->client[i].handshakes);
        round->failed += atomic_load(&shared->client[i].failed);
        round->not_as_asked += atomic_load(&shared->client[i].wrong);
    }
    return round->handshakes;
}

static void sleep_s(double seconds)
{
    nanosleep(&(struct timespec){.tv_sec = (time_t)seconds,
                                 .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)},
              NULL);
}

struct pf_tls_round pf_tls_handshakes(uint16_t port, pid_t server, uint32_t clients, int core,
                                      bool resume, double seconds)
{
    struct hammer_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct pf_tls_round round = {0}, before;
    pid_t pids[CLIENTS_MAX];
    if (shared == MAP_FAILED || clients > CLIENTS_MAX)
        pf_die("out of memory");
    for (uint32_t i = 0; i < clients; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pf_pin(core);
            hammer_child(shared, i, port, resume);
        }
    }
    sleep_s(0.3); /* processes start, contexts are made, the first tickets come */
    sum(shared, clients, &before);
    uint64_t cpu_ns = pf_proc_cpu_ns(server);
    sleep_s(seconds);
    sum(shared, clients, &round);
    round.cpu_s = (double)(pf_proc_cpu_ns(server) - cpu_ns) / 1e9;
    round.handshakes -= before.handshakes;
    round.per_cpu_s = (double)round.handshakes / round.cpu_s;
    atomic_store(&shared->stop, 1);
    for (uint32_t i = 0; i < clients; i++)
        waitpid(pids[i], NULL, 0);
    munmap(shared, sizeof(*shared));
    return round;
}

/* ---- holding ---- */

struct hold_shared {
    _Atomic uint32_t stop, open, failed, dropped;
};

struct pf_tls_hold {
    struct hold_shared *shared;
    pid_t pids[HOLD_CLIENTS];
};

static bool tls_write_all(SSL *ssl, const void *bytes, size_t len)
{
    return SSL_write(ssl, bytes, (int)len) == (int)len;
}

/* Reads until |text| has come. */
static bool tls_await(SSL *ssl, const char *text)
{
    char seen[8192];
    size_t len = 0;
    while (len < sizeof(seen) - 1) {
        int n = SSL_read(ssl, seen + len, (int)(sizeof(seen) - 1 - len));
        if (n <= 0 && SSL_get_error(ssl, n) == SSL_ERROR_WANT_READ)
            continue; /* a ticket */
        if (n <= 0)
            return false;
        len += (size_t)n;
        if (memmem(seen, len, text, strlen(text)))
            return true;
    }
    return false;
}

static int hold_one(const struct pf_tls_hold_spec *spec, SSL_CTX *context, uint32_t index)
{
    char request[PF_WS_REQUEST_BYTES_MAX], token[PF_JWT_BYTES_MAX], user[96];
    uint8_t frame[PF_WS_SMALL_BYTES_MAX];
    int fd = tcp_open(spec->port);
    SSL *ssl = fd >= 0 ? tls_open(context, fd, NULL) : NULL;
    snprintf(user, sizeof(user), "%s%u", spec->user_prefix, index);
    size_t token_len = pf_jwt_mint(spec->jwt_secret, spec->jwt_secret_len, user,
                                   bf_wall_ms() / 1000 + TOKEN_TTL_S, token);
    size_t n = pf_ws_request(request, sizeof(request), "127.0.0.1", spec->port, "/v1/ws",
                             "belfry.v1.json", token, token_len);
    size_t frame_len =
        pf_ws_frame(frame, sizeof(frame), BF_WS_TEXT, CONNECT_FRAME, sizeof(CONNECT_FRAME) - 1);
    bool ok = ssl && tls_write_all(ssl, request, n) && tls_await(ssl, "\r\n\r\n") &&
              tls_write_all(ssl, frame, frame_len) && tls_await(ssl, "welcome");
    SSL_free(ssl); /* the socket stays: keys are of no more use to somebody who only holds it */
    return ok ? fd : -1;
}

static _Noreturn void hold_child(const struct pf_tls_hold_spec *spec, struct hold_shared *shared,
                                 uint32_t first, uint32_t count)
{
    SSL_CTX *context = client_context();
    struct pollfd *fds = calloc(count, sizeof(*fds));
    for (uint32_t i = 0; fds && i < count; i++) {
        fds[i] = (struct pollfd){.fd = hold_one(spec, context, first + i), .events = POLLRDHUP};
        atomic_fetch_add(fds[i].fd >= 0 ? &shared->open : &shared->failed, 1);
    }
    while (fds && atomic_load(&shared->stop) == 0) {
        if (poll(fds, count, 100) <= 0)
            continue;
        for (uint32_t i = 0; i < count; i++) {
            if (fds[i].fd < 0 || fds[i].revents == 0)
                continue;
            close(fds[i].fd);
            fds[i].fd = -1;
            atomic_fetch_add(&shared->dropped, 1);
        }
    }
    for (uint32_t i = 0; fds && i < count; i++)
        if (fds[i].fd >= 0)
            tcp_reset(fds[i].fd);
    _exit(0);
}

struct pf_tls_hold *pf_tls_hold_start(const struct pf_tls_hold_spec *spec)
{
    struct pf_tls_hold *hold = calloc(1, sizeof(*hold));
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    hold->shared = mmap(NULL, sizeof(*hold->shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (hold->shared == MAP_FAILED)
        pf_die("out of memory");
    for (uint32_t i = 0; i < HOLD_CLIENTS; i++) {
        uint32_t first = spec->connections * i / HOLD_CLIENTS;
        uint32_t end = spec->connections * (i + 1) / HOLD_CLIENTS;
        hold->pids[i] = fork();
        if (hold->pids[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pf_pin(spec->core);
            hold_child(spec, hold->shared, first, end - first);
        }
    }
    uint64_t deadline = bf_mono_ns() + (uint64_t)(OPEN_SECONDS * 1e9);
    while (atomic_load(&hold->shared->open) < spec->connections) {
        if (atomic_load(&hold->shared->failed) > 0 || bf_mono_ns() > deadline)
            pf_die("%u of %u connections open, %u failed", atomic_load(&hold->shared->open),
                   spec->connections, atomic_load(&hold->shared->failed));
        sleep_s(0.01);
    }
    return hold;
}

uint32_t pf_tls_hold_dropped(const struct pf_tls_hold *hold)
{
    return atomic_load(&hold->shared->dropped);
}

void pf_tls_hold_stop(struct pf_tls_hold *hold)
{
    atomic_store(&hold->shared->stop, 1);
    for (uint32_t i = 0; i < HOLD_CLIENTS; i++)
        waitpid(hold->pids[i], NULL, 0);
    munmap(hold->shared, sizeof(*hold->shared));
    free(hold);
}
