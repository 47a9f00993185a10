/*
 * TLS for benchmarks: a certificate, clients that hold connections, clients that do nothing but
 * handshakes, and the raw OpenSSL server that handshakes are measured against. Plain blocking
 * OpenSSL in child processes: what is measured is the server. Parent's thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pf_tls_cert {
    char dir[64];
    char cert[96]; /* file, PEM, P-256, self-signed */
    char key[96];
};
void pf_tls_cert_make(struct pf_tls_cert *ret);
void pf_tls_cert_remove(const struct pf_tls_cert *cert);
/* The section of a node's configuration that uses it. */
void pf_tls_yaml(const struct pf_tls_cert *cert, char *out, size_t cap);

/* ---- holding ---- */

struct pf_tls_hold_spec {
    uint16_t port;
    uint32_t connections;
    const char *user_prefix;
    const char *jwt_secret; /* HS256 */
    size_t jwt_secret_len;
    int core;
};
struct pf_tls_hold;
/* TLS 1.3, upgrade, connect frame; waits until all are welcomed. Ends the program on a failure. */
struct pf_tls_hold *pf_tls_hold_start(const struct pf_tls_hold_spec *spec);
/* How many the server has closed meanwhile. */
uint32_t pf_tls_hold_dropped(const struct pf_tls_hold *hold);
void pf_tls_hold_stop(struct pf_tls_hold *hold);

/* ---- handshakes ---- */

struct pf_tls_round {
    uint64_t handshakes; /* to the ticket, which the server sends when it is through */
    uint64_t failed;
    uint64_t not_as_asked; /* resumed although full was asked, or the reverse */
    double cpu_s;          /* of the server */
    double per_cpu_s;
};
/* |clients| processes on |core| connect, shake hands and reset, for |seconds|; CPU is that of
 * |server|.
 */
struct pf_tls_round pf_tls_handshakes(uint16_t port, pid_t server, uint32_t clients, int core,
                                      bool resume, double seconds);

/* A process that accepts by epoll, shakes hands (TLS 1.3, one ticket) and waits for the reset:
 * OpenSSL and nothing else. */
pid_t pf_tls_raw_start(const struct pf_tls_cert *cert, int core, uint16_t *ret_port);
void pf_tls_raw_stop(pid_t pid);
