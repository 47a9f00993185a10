/*
 * permessage-deflate both ways. Any bytes as a compressed message: a verdict, never more than the
 * limit. The same bytes as a message, for the window that the first byte names: what is deflated
 * inflates to itself, and into no less room than it needs.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "proto/ws/deflate.h"

#define MESSAGE_MAX 4096u
#define PACKED_MAX  (MESSAGE_MAX + 256u)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inflate_any(struct bf_inflater *z, const uint8_t *data, size_t size)
{
    uint8_t *out = malloc(MESSAGE_MAX + 1u); /* exact, so that an overrun is seen */
    size_t len = 0;
    const struct bf_bytes message = {.at = (const char *)data, .len = size};
    int rc = bf_inflate(z, message, out, MESSAGE_MAX, &len);
    if (rc == 0 ? len > MESSAGE_MAX : rc != BF_ERR_TOO_LARGE && rc != BF_ERR_MALFORMED)
        abort();
    free(out);
}

static void round_trip(struct bf_inflater *z, struct bf_deflater *d, unsigned bits,
                       const uint8_t *data, size_t size)
{
    uint8_t *packed = malloc(PACKED_MAX);
    uint8_t *out = malloc(size + 1u);
    size_t len = 0;
    size_t n = bf_deflate(d, bits, (struct bf_bytes){.at = (const char *)data, .len = size}, packed,
                          PACKED_MAX);
    if (n == 0)
        abort();
    const struct bf_bytes message = {.at = (const char *)packed, .len = n};
    if (bf_inflate(z, message, out, size, &len) != 0 || len != size ||
        (size > 0 && memcmp(out, data, size) != 0))
        abort();
    if (size > 0 && bf_inflate(z, message, out, size - 1u, &len) != BF_ERR_TOO_LARGE)
        abort();
    free(out);
    free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bf_inflater *z;
    static struct bf_deflater *d;
    if (!z) {
        z = bf_inflater_create();
        d = bf_deflater_create();
    }
    if (size < 1 || size > MESSAGE_MAX)
        return 0;
    inflate_any(z, data + 1, size - 1);
    round_trip(z, d, 8u + data[0] % 8u, data + 1, size - 1);
    return 0;
}
