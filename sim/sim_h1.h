/* HTTP/1.1 requests out of bytes, answers into bytes (RFC 9112, what libcurl sends). No I/O; any
 * thread. */
#pragma once

#include "sim_stream.h"

#define SIM_H1_HEAD_BYTES_MAX 8192u

/* Looks for one whole request in |bytes|. Returns the bytes it took, 0 when more is wanted, -1 when
 * it is not HTTP/1.1 as we take it (no chunked bodies; |ret_status| says what to answer). */
long sim_h1_read(struct sim_stream_pool *p, struct sim_stream *s, const char *in, size_t bytes,
                 uint16_t *ret_status);

/* Writes |a| as a response. Returns its bytes, 0 when |size| is too small. */
size_t sim_h1_write(const struct sim_answer *a, bool close, char *out, size_t size);
