/* Pieces by size. See h2_memory.h. */
#include "proto/h2/h2_memory.h"

#include <stdbool.h>
#include <string.h>

#include "belfry/base/bug.h"

#define PAGE_BYTES 4096u
/* Before each piece: its class. Keeps pieces aligned to 16. */
#define HEAD_BYTES 16u
/* Head included. nghttp2's frame buffer has 16,394 bytes. */
#define FRAME_BYTES 20480u
/* Pieces are cut from runs, densely: those that nobody needed yet are not touched. */
#define RUN_BYTES 32768u

/* With the head of 16. A session of nghttp2 1.52 has pieces of 2,928, 1,024 (two: header tables),
 * 4,096 (streams) and 16,394 bytes, a stream ones of 200 and less. */
static const uint32_t class_bytes[BF_H2_CLASSES] = {
    48,   64,   96,   128,  192,  256,  384,  512,   768,         1040,
    1536, 2048, 2944, 4112, 6144, 8192, 8208, 12288, FRAME_BYTES, 2 * FRAME_BYTES,
};

struct head {
    uint32_t class;
    uint32_t magic;
};

#define MAGIC 0x68327063u

void bf_h2_memory_init(struct bf_h2_memory *m, void *base, size_t size)
{
    BF_BUG_ON((uintptr_t)base % PAGE_BYTES != 0);
    *m = (struct bf_h2_memory){.base = base, .size = size};
}

/* Index of the smallest class that holds |bytes|; BF_H2_CLASSES: none does. */
static uint32_t class_of(size_t bytes)
{
    uint32_t c = 0;
    while (c < BF_H2_CLASSES && class_bytes[c] < bytes)
        c++;
    return c;
}

/* A piece that was never used, so zero. Frame buffers start on a page. */
static uint8_t *cut(struct bf_h2_memory *m, uint32_t c)
{
    uint32_t bytes = class_bytes[c];
    if (m->fresh_left[c] == 0) {
        uint32_t run = bytes < FRAME_BYTES ? RUN_BYTES : bytes;
        if (m->size - m->used < run)
            return NULL;
        m->fresh[c] = m->base + m->used;
        m->fresh_left[c] = run / bytes;
        m->used += run;
    }
    uint8_t *at = m->fresh[c];
    m->fresh[c] += bytes;
    m->fresh_left[c]--;
    return at;
}

static void *take(struct bf_h2_memory *m, size_t size, bool *ret_is_zero)
{
    uint32_t c = class_of(size + HEAD_BYTES);
    uint8_t *at = c < BF_H2_CLASSES ? m->free[c] : NULL;
    *ret_is_zero = !at;
    if (at)
        memcpy(&m->free[c], at + HEAD_BYTES, sizeof(void *));
    else if (c < BF_H2_CLASSES)
        at = cut(m, c);
    if (!at) {
        m->refused++;
        return NULL;
    }
    m->live += class_bytes[c];
    memcpy(at, &(struct head){.class = c, .magic = MAGIC}, sizeof(struct head));
    return at + HEAD_BYTES;
}

void *bf_h2_malloc(size_t size, void *memory)
{
    bool is_zero;
    return take(memory, size, &is_zero);
}

static struct head *head_of(void *at)
{
    struct head *head = (void *)((uint8_t *)at - HEAD_BYTES);
    BF_BUG_ON(head->magic != MAGIC || head->class >= BF_H2_CLASSES);
    return head;
}

void bf_h2_free(void *at, void *memory)
{
    struct bf_h2_memory *m = memory;
    if (!at)
        return;
    struct head *head = head_of(at);
    uint32_t c = head->class;
    head->magic = 0;
    memcpy(at, &m->free[c], sizeof(void *));
    m->free[c] = head;
    m->live -= class_bytes[c];
}

void *bf_h2_calloc(size_t count, size_t size, void *memory)
{
    size_t bytes;
    bool is_zero;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *at = take(memory, bytes, &is_zero);
    return at && !is_zero ? memset(at, 0, bytes) : at; /* pages stay untouched */
}

void *bf_h2_realloc(void *at, size_t size, void *memory)
{
    if (!at)
        return bf_h2_malloc(size, memory);
    size_t has = class_bytes[head_of(at)->class] - HEAD_BYTES;
    if (size <= has && size > 0)
        return at;
    void *fresh = bf_h2_malloc(size, memory);
    if (!fresh)
        return NULL;
    memcpy(fresh, at, has < size ? has : size);
    bf_h2_free(at, memory);
    return fresh;
}
