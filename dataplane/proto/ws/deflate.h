/*
 * permessage-deflate (RFC 7692) of whole messages, over zlib, with no context kept between them.
 * One inflater and one deflater serve a worker: zlib's state is in use only inside a call, and its
 * memory is part of the struct, so nothing is allocated for a message. One worker thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

struct bf_inflater;
struct bf_deflater;

/* NULL when memory is out. _destroy takes NULL. */
struct bf_inflater *bf_inflater_create(void);
void bf_inflater_destroy(struct bf_inflater *z);

/*
 * Inflates one message, without its 00 00 ff ff, into |out|. Stops as soon as the result would be
 * longer than |bytes_max|, so a decompression bomb costs no more than a message. |out| has room for
 * bytes_max + 1. Returns 0 and *ret_len, BF_ERR_TOO_LARGE, or BF_ERR_MALFORMED.
 */
int bf_inflate(struct bf_inflater *z, struct bf_bytes message, uint8_t *out, size_t bytes_max,
               size_t *ret_len);

struct bf_deflater *bf_deflater_create(void);
void bf_deflater_destroy(struct bf_deflater *z);

/*
 * Deflates one message for a window of |bits| (8 to 15), without its 00 00 ff ff. Returns the bytes
 * written, or 0 when they do not fit |cap|. Level 1: about 100 MB/s, and most of what JSON gives.
 */
size_t bf_deflate(struct bf_deflater *z, unsigned bits, struct bf_bytes message, uint8_t *out,
                  size_t cap);
