/* A small blocking HTTP/1.1 client with a kept connection: enough for our own API. One thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct pf_http {
    int fd; /* -1: not connected */
};

/* Returns a connected TCP socket with TCP_NODELAY, or -1. */
int pf_tcp_connect(const char *host, uint16_t port);

/*
 * Sends a request and reads the whole answer (Content-Length or chunked). Connects, or connects
 * again when the kept connection is gone. |authorization| and |body| may be NULL; |answer| (of
 * |cap| bytes, terminated and cut there) may be NULL. Returns the status or -1.
 */
int pf_http_call(struct pf_http *http, const char *host, uint16_t port, const char *method,
                 const char *path, const char *authorization, const char *content_type,
                 const char *body, size_t body_len, char *answer, size_t cap);
void pf_http_close(struct pf_http *http);
