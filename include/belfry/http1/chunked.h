/*
 * The one decoder of chunked bodies (RFC 9112 section 7.1), strict: sizes are hex digits and
 * nothing else, every line ends in CRLF, extensions and trailers are bounded and thrown away. Byte
 * by byte, so any cut of the input gives the same result. Bytes in; results are borrowed from them;
 * no I/O, no allocation.
 */
#pragma once

#include <stdint.h>

#include "belfry/http1/text.h"

/* Extensions mean nothing to us; a signature in one fits. Of one chunk. */
#define BF_HTTP1_EXTENSION_BYTES_MAX 256u
/* Trailers are thrown away; of one body, names and values. */
#define BF_HTTP1_TRAILER_BYTES_MAX 4096u
/* Hex digits of a chunk's size: more than any body has, less than overflows. */
#define BF_HTTP1_SIZE_DIGITS_MAX 15u

enum bf_http1_chunk_state {
    BF_CHUNK_SIZE = 0,
    BF_CHUNK_EXTENSION,
    BF_CHUNK_SIZE_LF,
    BF_CHUNK_DATA,
    BF_CHUNK_DATA_CR,
    BF_CHUNK_DATA_LF,
    BF_CHUNK_LINE, /* first byte of a trailer line, or of the last line */
    BF_CHUNK_NAME,
    BF_CHUNK_VALUE,
    BF_CHUNK_LINE_LF,
    BF_CHUNK_END_LF,
    BF_CHUNK_DONE
};

/* Begins as zeros. */
struct bf_http1_chunked {
    enum bf_http1_chunk_state state;
    uint32_t digits;    /* of the size so far */
    uint32_t extension; /* bytes of this chunk's */
    uint32_t trailer;   /* bytes of all trailers */
    uint64_t left;      /* of this chunk */
    const char *why;    /* of a refusal */
};

static inline int bf_http1_chunk_no(struct bf_http1_chunked *c, int status, const char *why)
{
    c->why = why;
    return -status;
}

static inline int bf_http1_chunk_size(struct bf_http1_chunked *c, char byte)
{
    if (bf_http1_is_hex(byte)) {
        char low = (char)(byte | 0x20);
        if (++c->digits > BF_HTTP1_SIZE_DIGITS_MAX)
            return bf_http1_chunk_no(c, 400, "a chunk's size has too many digits");
        c->left = c->left << 4 | (uint64_t)(byte <= '9' ? byte - '0' : low - 'a' + 10);
        return 0;
    }
    if (c->digits == 0 || (byte != ';' && byte != '\r'))
        return bf_http1_chunk_no(c, 400, "a chunk's size is not hex digits");
    c->state = byte == ';' ? BF_CHUNK_EXTENSION : BF_CHUNK_SIZE_LF;
    c->extension = 0;
    return 0;
}

static inline int bf_http1_chunk_extension(struct bf_http1_chunked *c, char byte)
{
    if (byte == '\r') {
        c->state = BF_CHUNK_SIZE_LF;
        return 0;
    }
    if (!bf_http1_is_field_value((struct bf_bytes){.at = &byte, .len = 1}))
        return bf_http1_chunk_no(c, 400, "a chunk's extension holds a control character");
    return ++c->extension > BF_HTTP1_EXTENSION_BYTES_MAX
               ? bf_http1_chunk_no(c, 400, "a chunk's extension is too long")
               : 0;
}

static inline int bf_http1_chunk_trailer(struct bf_http1_chunked *c, char byte)
{
    if (++c->trailer > BF_HTTP1_TRAILER_BYTES_MAX)
        return bf_http1_chunk_no(c, 431, "the trailers are too large");
    if (c->state == BF_CHUNK_VALUE) {
        if (byte == '\r')
            c->state = BF_CHUNK_LINE_LF;
        else if (!bf_http1_is_field_value((struct bf_bytes){.at = &byte, .len = 1}))
            return bf_http1_chunk_no(c, 400, "a trailer holds a control character");
        return 0;
    }
    if (c->state == BF_CHUNK_NAME && byte == ':')
        c->state = BF_CHUNK_VALUE;
    else if (bf_http1_is_tchar(byte)) /* folded, empty and spaced names end here */
        c->state = BF_CHUNK_NAME;
    else
        return bf_http1_chunk_no(c, 400, "a trailer's name is not a token");
    return 0;
}

/* One byte that is not data. */
static inline int bf_http1_chunk_byte(struct bf_http1_chunked *c, char byte)
{
    switch (c->state) {
    case BF_CHUNK_SIZE:
        return bf_http1_chunk_size(c, byte);
    case BF_CHUNK_EXTENSION:
        return bf_http1_chunk_extension(c, byte);
    case BF_CHUNK_LINE:
        if (byte != '\r')
            return bf_http1_chunk_trailer(c, byte);
        c->state = BF_CHUNK_END_LF;
        return 0;
    case BF_CHUNK_NAME:
    case BF_CHUNK_VALUE:
        return bf_http1_chunk_trailer(c, byte);
    case BF_CHUNK_DATA_CR:
        c->state = BF_CHUNK_DATA_LF;
        return byte == '\r' ? 0 : bf_http1_chunk_no(c, 400, "a chunk is longer than its size says");
    case BF_CHUNK_SIZE_LF:
    case BF_CHUNK_DATA_LF:
    case BF_CHUNK_LINE_LF:
    case BF_CHUNK_END_LF:
    case BF_CHUNK_DATA:
    case BF_CHUNK_DONE:
    default:
        break;
    }
    if (byte != '\n')
        return bf_http1_chunk_no(c, 400, "a line of the chunked body does not end in CRLF");
    if (c->state == BF_CHUNK_SIZE_LF)
        c->state = c->left > 0 ? BF_CHUNK_DATA : BF_CHUNK_LINE;
    else if (c->state == BF_CHUNK_LINE_LF)
        c->state = BF_CHUNK_LINE;
    else if (c->state == BF_CHUNK_END_LF)
        c->state = BF_CHUNK_DONE;
    else {
        c->state = BF_CHUNK_SIZE;
        c->digits = 0;
    }
    return 0;
}

/*
 * Takes bytes up to the next run of data, or the end. Returns how many were taken (0..len), of
 * which *ret_data is the last part (empty: none), or the negated status of a refusal (400, 431)
 * with c->why. Again until all is taken or the state is BF_CHUNK_DONE: what follows then is the
 * next request.
 */
static inline long bf_http1_chunked_take(struct bf_http1_chunked *c, const char *buf, size_t len,
                                         struct bf_bytes *ret_data)
{
    size_t at = 0;
    *ret_data = (struct bf_bytes){.at = buf, .len = 0};
    while (at < len && c->state != BF_CHUNK_DONE) {
        if (c->state == BF_CHUNK_DATA) {
            size_t n = len - at < c->left ? len - at : (size_t)c->left;
            *ret_data = (struct bf_bytes){.at = buf + at, .len = n};
            c->left -= n;
            if (c->left == 0)
                c->state = BF_CHUNK_DATA_CR;
            return (long)(at + n);
        }
        int rc = bf_http1_chunk_byte(c, buf[at++]);
        if (rc != 0)
            return rc;
    }
    return (long)at;
}
