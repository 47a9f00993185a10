/*
 * Memory of HTTP/2 sessions: a mapping of fixed size, cut into pieces of a few sizes, handed to
 * nghttp2 as its allocator. Pieces are kept by size when freed and never given back, so a steady
 * state takes nothing new. The buffer of 16.4 KB in which a session builds its frames starts on a
 * page of its own: requests are small, so only one of its five pages is ever touched, which makes a
 * session cheap. Owner: one worker thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Sizes: see h2_memory.c. */
#define BF_H2_CLASSES 20u
/* What one session may need at once, streams apart: 10 KB, its frame buffer's address space, and
 * the entries of two header tables. */
#define BF_H2_SESSION_BYTES 49152u
/* And a stream: its record, its frames' records and copies of fields, rounded up. */
#define BF_H2_STREAM_BYTES 2048u

struct bf_h2_memory {
    uint8_t *base;
    size_t size;
    size_t used; /* cut off so far */
    size_t live; /* handed out, in whole pieces */
    uint64_t refused;
    void *free[BF_H2_CLASSES];
    uint8_t *fresh[BF_H2_CLASSES]; /* of the run cut last: what was never handed out */
    uint32_t fresh_left[BF_H2_CLASSES];
};

/* |base|: zeroed pages, |size| bytes, both multiples of 4,096; borrowed as long as |m| lives. */
void bf_h2_memory_init(struct bf_h2_memory *m, void *base, size_t size);

/* malloc, free, calloc and realloc over it; |m| as user data, as nghttp2_mem has them. */
void *bf_h2_malloc(size_t size, void *m);
void bf_h2_free(void *at, void *m);
void *bf_h2_calloc(size_t count, size_t size, void *m);
void *bf_h2_realloc(void *at, size_t size, void *m);
