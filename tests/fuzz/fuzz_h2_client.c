/*
 * The HTTP/2 client on any bytes of a server. The first byte says how the rest is cut into reads
 * and how many requests are open. Whatever comes: no crash, each request ends at most once and
 * never after it was forgotten, the bound of an answer holds, and all memory is back at the end.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/h2/h2.h"

#define MEMORY_BYTES (1u << 20)
#define REQUESTS_MAX 8u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct client {
    struct bf_h2 *h2;
    struct bf_h2_stream streams[REQUESTS_MAX];
    bool is_open[REQUESTS_MAX];
};

static void on_event(void *context, const struct bf_h2_event *event)
{
    struct client *c = context;
    if (event->kind == BF_H2_GOAWAY && event->debug.len > BF_H2_DEBUG_MAX)
        abort();
    if (event->kind != BF_H2_STREAM_END)
        return;
    size_t i = (size_t)(event->stream - c->streams);
    if (i >= REQUESTS_MAX || !c->is_open[i] || event->stream->answer_len > BF_PUSH_ANSWER_BYTES_MAX)
        abort();
    if (event->stream->is_answered && event->stream->status >= 1000)
        abort();
    c->is_open[i] = false;
}

static void drain(struct client *c)
{
    uint8_t out[BF_H2_OUT_BYTES_MIN];
    while (bf_h2_pull(c->h2, out, sizeof(out)) > 0)
        ;
}

static void open_one(struct client *c, uint32_t i)
{
    static const uint8_t body[100];
    static uint8_t out[BF_H2_REQUEST_OUT_MAX];
    const struct bf_h2_request r = {.authority = BF_BYTES("a"), .path = BF_BYTES("/")};
    if (c->is_open[i])
        return;
    c->streams[i].body = body;
    c->streams[i].body_len = sizeof(body);
    c->is_open[i] = true; /* its end may come within the call */
    if (bf_h2_request(c->h2, &r, &c->streams[i], out, sizeof(out)) <= 0)
        c->is_open[i] = false;
}

static void talk(struct client *c, const uint8_t *data, size_t size, size_t piece,
                 uint32_t requests)
{
    static const uint8_t settings[9] = {0, 0, 0, 4};
    drain(c);
    (void)bf_h2_feed(c->h2, settings, sizeof(settings), 0);
    drain(c);
    for (size_t at = 0; at < size; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        uint8_t *copy = malloc(n);
        for (uint32_t i = 0; i < requests; i++)
            open_one(c, i);
        memcpy(copy, data + at, n);
        int rc = bf_h2_feed(c->h2, copy, n, at);
        free(copy);
        drain(c);
        if (rc != 0)
            break;
        if (c->is_open[0] && at % 5 == 0) {
            bf_h2_forget(c->h2, &c->streams[0]);
            c->is_open[0] = false;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void *base;
    static struct bf_h2_memory memory;
    struct client c = {0};
    if (!base)
        base = aligned_alloc(4096, MEMORY_BYTES);
    memset(base, 0, memory.used ? memory.used : MEMORY_BYTES);
    if (size < 1)
        return 0;
    bf_h2_memory_init(&memory, base, MEMORY_BYTES);
    if (bf_h2_create(&memory, on_event, &c, &c.h2) != 0)
        abort();
    talk(&c, data + 1, size - 1, 1u + (data[0] >> 3) * 37u, data[0] & 7u);
    bf_h2_destroy(c.h2);
    if (memory.live != 0)
        abort();
    return 0;
}
