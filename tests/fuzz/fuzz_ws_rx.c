/*
 * WebSocket receive side on any bytes, with and without permessage-deflate. The first byte chooses
 * how the rest is cut into reads, its top bit whether compression was agreed; the events must equal
 * those of one whole read, no message may be above the limit, and no context may leak.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "proto/ws/ws_rx.h"

#define MESSAGE_MAX 512u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Order-dependent digest of the events. */
struct digest {
    uint64_t value;
};

static void digest_add(struct digest *d, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        d->value = (d->value ^ ((const uint8_t *)bytes)[i]) * UINT64_C(1099511628211);
}

static void digest_event(struct digest *d, const struct bf_ws_event *ev)
{
    uint32_t head[2] = {(uint32_t)ev->kind, ev->code};
    digest_add(d, head, sizeof(head));
    if (ev->kind != BF_WS_EV_ERROR) /* the words of an error may differ, its code may not */
        digest_add(d, ev->data.at, ev->data.len);
}

/* Returns false once the connection is over. */
static bool feed(struct bf_ws_rx_pool *pool, struct bf_ws_rx **rx, bool may_compress,
                 const uint8_t *p, size_t n, struct digest *d)
{
    uint8_t *copy = malloc(n ? n : 1);
    bool alive = true;
    memcpy(copy, p, n);
    for (size_t at = 0; alive;) {
        struct bf_ws_event ev;
        size_t used = 0;
        int rc = bf_ws_rx_feed(pool, rx, may_compress, copy + at, n - at, &used, &ev);
        if (rc < 0 || used > n - at || (rc == 0 && at + used != n))
            abort();
        at += used;
        if (rc == 0)
            break;
        if (ev.data.len > MESSAGE_MAX)
            abort();
        digest_event(d, &ev);
        alive = ev.kind != BF_WS_EV_CLOSE && ev.kind != BF_WS_EV_ERROR;
    }
    free(copy);
    return alive;
}

static struct digest run(struct bf_ws_rx_pool *pool, bool may_compress, const uint8_t *p, size_t n,
                         size_t piece)
{
    struct digest d = {.value = UINT64_C(14695981039346656037)};
    struct bf_ws_rx *rx = NULL;
    for (size_t at = 0; at < n; at += piece)
        if (!feed(pool, &rx, may_compress, p + at, n - at < piece ? n - at : piece, &d))
            break;
    bf_ws_rx_drop(pool, &rx);
    return d;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bf_ws_rx_pool *pool; /* one context: a leaked one shows as BF_ERR_FULL */
    if (!pool)
        pool = bf_ws_rx_pool_create(1, MESSAGE_MAX);
    if (size < 2)
        return 0;
    bool may_compress = data[0] & 0x80;
    struct digest whole = run(pool, may_compress, data + 1, size - 1, size);
    struct digest cut = run(pool, may_compress, data + 1, size - 1, 1u + (data[0] & 0x7fu) % 37u);
    if (whole.value != cut.value)
        abort();
    return 0;
}
