/* See deflate.h. */
#include "proto/ws/deflate.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"

/* inflate: its state (7.1 KB in zlib 1.2.13) and a window of 32 KiB, in pieces aligned to 16. */
#define INFLATE_BYTES (48u * 1024u)
/* deflate, window 15, memLevel 8: 64 KiB each of window, chains, heads, pending, and its state. */
#define DEFLATE_BYTES     (288u * 1024u)
#define DEFLATE_LEVEL     1
#define DEFLATE_MEM_LEVEL 8
/* What Z_SYNC_FLUSH ends with and a message leaves out (RFC 7692 7.2.1). */
#define TAIL_BYTES 4u

/* zlib's memory: taken from the front, given back all at once by the next start. */
struct room {
    uint8_t *base;
    size_t cap;
    size_t used;
};

struct bf_inflater {
    z_stream z;
    struct room room;
    uint8_t memory[INFLATE_BYTES] __attribute__((aligned(16)));
};

struct bf_deflater {
    z_stream z;
    struct room room;
    unsigned bits; /* that the stream is set up for, 0: none */
    uint8_t memory[DEFLATE_BYTES] __attribute__((aligned(16)));
};

static const uint8_t tail[TAIL_BYTES] = {0x00, 0x00, 0xff, 0xff};

static void *room_alloc(void *opaque, unsigned items, unsigned size)
{
    struct room *room = opaque;
    size_t bytes = ((size_t)items * size + 15u) & ~(size_t)15u;
    if (bytes > room->cap - room->used)
        return NULL;
    void *at = room->base + room->used;
    room->used += bytes;
    return at;
}

static void room_free(void *opaque, void *at)
{
    (void)opaque;
    (void)at;
}

/* ---- inflate ---- */

struct bf_inflater *bf_inflater_create(void)
{
    struct bf_inflater *z = calloc(1, sizeof(*z));
    if (!z)
        return NULL;
    z->room = (struct room){.base = z->memory, .cap = sizeof(z->memory)};
    z->z = (z_stream){.zalloc = room_alloc, .zfree = room_free, .opaque = &z->room};
    if (inflateInit2(&z->z, -MAX_WBITS) != Z_OK) {
        free(z);
        return NULL;
    }
    return z;
}

void bf_inflater_destroy(struct bf_inflater *z)
{
    free(z); /* its streams live inside */
}

/* Feeds bytes. 0 when all are taken, else an error. */
static int inflate_some(z_stream *z, const uint8_t *p, size_t n)
{
    z->next_in = (z_const Bytef *)(uintptr_t)p;
    z->avail_in = (uInt)n;
    while (z->avail_in > 0) {
        int rc = inflate(z, Z_SYNC_FLUSH);
        if (z->avail_out == 0)
            return BF_ERR_TOO_LARGE;
        /* a sender may end a block with BFINAL (RFC 7692 7.2.3.4): what follows is a new stream */
        if (rc == Z_STREAM_END)
            rc = inflateReset(z);
        if (rc != Z_OK)
            return BF_ERR_MALFORMED;
    }
    return 0;
}

int bf_inflate(struct bf_inflater *inflater, struct bf_bytes message, uint8_t *out,
               size_t bytes_max, size_t *ret_len)
{
    z_stream *z = &inflater->z;
    if (message.len == 0) { /* an empty message should be 00, but who sends nothing means it too */
        *ret_len = 0;
        return 0;
    }
    BF_BUG_ON(inflateReset(z) != Z_OK);
    z->next_out = out;
    z->avail_out = (uInt)bytes_max + 1u;
    int rc = inflate_some(z, (const uint8_t *)message.at, message.len);
    if (rc == 0)
        rc = inflate_some(z, tail, sizeof(tail));
    if (rc != 0)
        return rc;
    /* data_type bit 7: it stands between two blocks. Elsewhere the tail was taken for data: the
     * message is cut. */
    if (!(z->data_type & 128))
        return BF_ERR_MALFORMED;
    *ret_len = bytes_max + 1u - z->avail_out;
    return 0;
}

/* ---- deflate ---- */

/* zlib knows no raw window of 256 bytes; run-length coding refers one byte back only, so it fits
 * any. */
static bool deflate_start(struct bf_deflater *d, unsigned bits)
{
    int strategy = bits == 8 ? Z_RLE : Z_DEFAULT_STRATEGY;
    if (d->bits == bits)
        return deflateReset(&d->z) == Z_OK;
    d->room.used = 0;
    d->bits = 0;
    d->z = (z_stream){.zalloc = room_alloc, .zfree = room_free, .opaque = &d->room};
    if (deflateInit2(&d->z, DEFLATE_LEVEL, Z_DEFLATED, bits == 8 ? -9 : -(int)bits,
                     DEFLATE_MEM_LEVEL, strategy) != Z_OK)
        return false;
    d->bits = bits;
    return true;
}

struct bf_deflater *bf_deflater_create(void)
{
    struct bf_deflater *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->room = (struct room){.base = d->memory, .cap = sizeof(d->memory)};
    if (!deflate_start(d, MAX_WBITS)) { /* the largest: whatever follows fits as well */
        free(d);
        return NULL;
    }
    return d;
}

void bf_deflater_destroy(struct bf_deflater *z)
{
    free(z);
}

size_t bf_deflate(struct bf_deflater *d, unsigned bits, struct bf_bytes message, uint8_t *out,
                  size_t cap)
{
    BF_BUG_ON(!deflate_start(d, bits));
    d->z.next_in = (z_const Bytef *)(uintptr_t)message.at;
    d->z.avail_in = (uInt)message.len;
    d->z.next_out = out;
    d->z.avail_out = (uInt)cap;
    /* with room left, a flush is complete in one call */
    if (deflate(&d->z, Z_SYNC_FLUSH) != Z_OK || d->z.avail_in > 0 || d->z.avail_out == 0)
        return 0;
    size_t len = cap - d->z.avail_out;
    BF_BUG_ON(len < TAIL_BYTES || memcmp(out + len - TAIL_BYTES, tail, TAIL_BYTES) != 0);
    return len - TAIL_BYTES;
}
