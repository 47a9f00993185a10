/* The raw OpenSSL server that P12 divides by: see pf_tls.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pf_load.h"
#include "pf_report.h"
#include "pf_tls.h"

#define FDS_MAX    1024
#define EVENTS_MAX 64
#define BACKLOG    4096

static SSL_CTX *server_context(const struct pf_tls_cert *cert)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context || SSL_CTX_use_certificate_chain_file(context, cert->cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, cert->key, SSL_FILETYPE_PEM) != 1)
        pf_die("raw server: the certificate cannot be used");
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 1); /* as many as ours */
    return context;
}

static void accept_one(SSL_CTX *context, int listener, int epoll, SSL *sessions[FDS_MAX])
{
    const int one = 1;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 || fd >= FDS_MAX) {
        if (fd >= 0)
            close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    sessions[fd] = SSL_new(context);
    SSL_set_fd(sessions[fd], fd);
    SSL_set_accept_state(sessions[fd]);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void serve_one(int fd, SSL *sessions[FDS_MAX])
{
    uint8_t bytes[256];
    SSL *ssl = sessions[fd];
    int n = SSL_read(ssl, bytes, sizeof(bytes)); /* shakes hands first */
    if (n > 0 || SSL_get_error(ssl, n) == SSL_ERROR_WANT_READ)
        return;
    SSL_free(ssl);
    sessions[fd] = NULL;
    close(fd);
}

static _Noreturn void serve(const struct pf_tls_cert *cert, int listener)
{
    static SSL *sessions[FDS_MAX];
    SSL_CTX *context = server_context(cert);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int n = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener)
                accept_one(context, listener, epoll, sessions);
            else
                serve_one(events[i].data.fd, sessions);
        }
    }
}

pid_t pf_tls_raw_start(const struct pf_tls_cert *cert, int core, uint16_t *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, BACKLOG) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &len) != 0)
        pf_die("raw server: cannot listen");
    *ret_port = ntohs(address.sin_port);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pf_pin(core);
        serve(cert, listener);
    }
    close(listener);
    return pid;
}

void pf_tls_raw_stop(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
