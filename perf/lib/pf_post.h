/*
 * HTTP load: POSTs over kept connections, open loop at a rate or closed loop. One thread with
 * epoll; C and small, so that the server is measured and not the client.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/histogram.h"

#define PF_POST_CONNECTIONS_MAX 512u
#define PF_POST_BODY_BYTES_MAX  2048u

struct pf_post_spec {
    const char *host;
    uint16_t port;
    const char *api_key;
    const char *path;
    uint32_t connections;
    double rate;    /* requests a second, open loop; 0: closed loop, all connections always busy */
    double seconds; /* how long requests are begun; answers are awaited after it */
    uint64_t count; /* at most so many; 0: no limit */
    int expect;     /* status of a good answer */
    /* Writes the body of request |number|; |now_ns| is CLOCK_MONOTONIC just before the send call.
     */
    size_t (*make)(void *ctx, uint64_t number, uint64_t now_ns, char *out, size_t cap);
    void *ctx;
};

struct pf_post_result {
    uint64_t sent, good, bad;
    uint64_t late;  /* open loop: begun more than 1 ms after their time for want of a connection */
    double seconds; /* first send to last answer */
    struct bf_hist latency_ns; /* send call to whole answer */
    char first_bad[256];       /* start of the first answer that was not as expected */
};

/* Runs it. Returns false if no connection could be made. */
bool pf_post_run(const struct pf_post_spec *spec, struct pf_post_result *ret);
