/*
 * Cursors for binary records that remember their first error (after Knot's wire_ctx): from then on
 * every call does nothing and every read gives zero, so the caller checks `failed` once, at the
 * end. Integers are little-endian unless the name says be (be where bytes must sort, as in store
 * keys).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A borrowed run of bytes. Not terminated. */
struct bf_bytes {
    const char *at;
    size_t len;
};

#define BF_BYTES(literal) ((struct bf_bytes){.at = (literal), .len = sizeof(literal) - 1})

static inline bool bf_bytes_is_equal(struct bf_bytes a, struct bf_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

struct bf_writer {
    uint8_t *buf;
    size_t cap;
    size_t len;
    bool failed;
};

static inline void bf_put_raw(struct bf_writer *w, const void *src, size_t n)
{
    if (w->failed || n > w->cap - w->len) {
        w->failed = true;
        return;
    }
    if (n > 0)
        memcpy(w->buf + w->len, src, n);
    w->len += n;
}

static inline void bf_put_bytes(struct bf_writer *w, struct bf_bytes b)
{
    bf_put_raw(w, b.at, b.len);
}

static inline void bf_put_u8(struct bf_writer *w, uint8_t v)
{
    bf_put_raw(w, &v, 1);
}

static inline void bf_put_u16(struct bf_writer *w, uint16_t v)
{
    uint8_t b[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
    bf_put_raw(w, b, 2);
}

static inline void bf_put_u32(struct bf_writer *w, uint32_t v)
{
    uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    bf_put_raw(w, b, 4);
}

static inline void bf_put_u64(struct bf_writer *w, uint64_t v)
{
    bf_put_u32(w, (uint32_t)v);
    bf_put_u32(w, (uint32_t)(v >> 32));
}

static inline void bf_put_be64(struct bf_writer *w, uint64_t v)
{
    uint8_t b[8];
    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> (56 - 8 * i));
    bf_put_raw(w, b, 8);
}

/* u16 length, then the bytes. */
static inline void bf_put_str16(struct bf_writer *w, struct bf_bytes b)
{
    if (b.len > UINT16_MAX) {
        w->failed = true;
        return;
    }
    bf_put_u16(w, (uint16_t)b.len);
    bf_put_bytes(w, b);
}

/* u32 length, then the bytes. */
static inline void bf_put_str32(struct bf_writer *w, struct bf_bytes b)
{
    if (b.len > UINT32_MAX) {
        w->failed = true;
        return;
    }
    bf_put_u32(w, (uint32_t)b.len);
    bf_put_bytes(w, b);
}

struct bf_reader {
    const uint8_t *buf;
    size_t len;
    size_t at;
    bool failed;
};

static inline const uint8_t *bf_get_raw(struct bf_reader *r, size_t n)
{
    if (r->failed || n > r->len - r->at) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *p = r->buf + r->at;
    r->at += n;
    return p;
}

static inline uint8_t bf_get_u8(struct bf_reader *r)
{
    const uint8_t *p = bf_get_raw(r, 1);
    return p ? p[0] : 0;
}

static inline uint16_t bf_get_u16(struct bf_reader *r)
{
    const uint8_t *p = bf_get_raw(r, 2);
    return (uint16_t)(p ? p[0] | p[1] << 8 : 0); /* one cast outside: gcc warns under UBSan else */
}

static inline uint32_t bf_get_u32(struct bf_reader *r)
{
    const uint8_t *p = bf_get_raw(r, 4);
    return p ? (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24
             : 0;
}

static inline uint64_t bf_get_u64(struct bf_reader *r)
{
    uint64_t lo = bf_get_u32(r);
    uint64_t hi = bf_get_u32(r);
    return lo | hi << 32;
}

static inline uint64_t bf_get_be64(struct bf_reader *r)
{
    const uint8_t *p = bf_get_raw(r, 8);
    uint64_t v = 0;
    for (int i = 0; p && i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

static inline struct bf_bytes bf_get_bytes(struct bf_reader *r, size_t n)
{
    const uint8_t *p = bf_get_raw(r, n);
    return (struct bf_bytes){.at = (const char *)p, .len = p ? n : 0};
}

static inline struct bf_bytes bf_get_str16(struct bf_reader *r)
{
    return bf_get_bytes(r, bf_get_u16(r));
}

static inline struct bf_bytes bf_get_str32(struct bf_reader *r)
{
    return bf_get_bytes(r, bf_get_u32(r));
}
