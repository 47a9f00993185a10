/* Mappings with names. See arena.h. */
#include "memory/arena.h"

#include <stdio.h>
#include <sys/mman.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"

/* Pieces are rounded to pages so that each starts on one. */
#define PAGE_BYTES 4096u
#define HUGE_BYTES (2u << 20)
/* What a second-level TLB of 2,048 entries reaches with small pages: a smaller table gains little,
 * and the unused end of 2 MB would weigh on each of its few connections. */
#define WIDE_BYTES_MIN (8u << 20)

static uint64_t bytes_of(uint64_t count, uint64_t item_bytes)
{
    uint64_t bytes = (count * item_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    return bytes == 0 ? PAGE_BYTES : bytes;
}

/* NORESERVE: the sum is a ceiling for everything at once, which the limits keep from happening. */
static void *map(uint64_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    /* huge pages would touch 2 MB for one record: the opposite of what a lazy pool is for */
    (void)madvise(at, bytes, MADV_NOHUGEPAGE);
    return at;
}

/* As map, from a multiple of HUGE_BYTES on. */
static uint8_t *map_aligned(uint64_t bytes)
{
    uint8_t *at = map(bytes + HUGE_BYTES);
    if (!at)
        return NULL;
    uint64_t before = (HUGE_BYTES - (uintptr_t)at % HUGE_BYTES) % HUGE_BYTES;
    if (before > 0)
        (void)munmap(at, before);
    (void)munmap(at + before + bytes, HUGE_BYTES - before);
    return at + before;
}

static void *note(struct bf_arena *arena, const char *holder, uint64_t count, uint64_t item_bytes,
                  void *at)
{
    BF_BUG_ON(arena->count == BF_ARENA_PIECES_MAX);
    if (!at)
        return NULL;
    uint64_t bytes = bytes_of(count, item_bytes);
    arena->pieces[arena->count++] = (struct bf_arena_piece){
        .holder = holder,
        .at = at,
        .count = count,
        .item_bytes = item_bytes,
        .mapped_bytes = bytes,
    };
    arena->bytes += bytes;
    return at;
}

void *bf_arena_take(struct bf_arena *arena, const char *holder, uint64_t count, uint64_t item_bytes)
{
    return note(arena, holder, count, item_bytes, map(bytes_of(count, item_bytes)));
}

void *bf_arena_take_wide(struct bf_arena *arena, const char *holder, uint64_t count,
                         uint64_t item_bytes)
{
    uint64_t bytes = bytes_of(count, item_bytes);
    uint64_t whole = bytes / HUGE_BYTES * HUGE_BYTES;
    if (bytes < WIDE_BYTES_MIN)
        return bf_arena_take(arena, holder, count, item_bytes);
    uint8_t *at = map_aligned(bytes);
    if (at) /* a kernel without huge pages refuses: slower, not wrong */
        (void)madvise(at, whole, MADV_HUGEPAGE);
    return note(arena, holder, count, item_bytes, at);
}

int bf_arena_slab(struct bf_arena *arena, const char *holder, uint32_t count, uint32_t item_bytes,
                  struct bf_slab *ret_slab)
{
    void *base = bf_arena_take(arena, holder, count, item_bytes);
    if (!base)
        return BF_ERR_NO_MEMORY;
    *ret_slab = (struct bf_slab){.base = base, .item_bytes = item_bytes, .cap = count};
    return 0;
}

void bf_arena_log(const struct bf_arena *arena, uint32_t worker)
{
    for (uint32_t i = 0; i < arena->count; i++) {
        const struct bf_arena_piece *p = &arena->pieces[i];
        BF_DEBUG("dataplane", "worker %u memory: %-22s %9lu x %5lu B = %7lu KiB", worker, p->holder,
                 (unsigned long)p->count, (unsigned long)p->item_bytes,
                 (unsigned long)(p->mapped_bytes / 1024u));
    }
    BF_DEBUG("dataplane", "worker %u memory: at most %lu MiB, touched as it is needed", worker,
             (unsigned long)(arena->bytes >> 20));
}

void bf_arena_fini(struct bf_arena *arena)
{
    for (uint32_t i = 0; i < arena->count; i++)
        (void)munmap(arena->pieces[i].at, arena->pieces[i].mapped_bytes);
    arena->count = 0;
    arena->bytes = 0;
}
