/* Mappings with names. See arena.h. */
#include "pool/arena.h"

#include <stdio.h>
#include <sys/mman.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"

/* Pieces are rounded to pages so that each starts on one. */
#define PAGE_BYTES 4096u

void *bf_arena_take(struct bf_arena *arena, const char *holder, uint64_t count, uint64_t item_bytes)
{
    uint64_t bytes = (count * item_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    BF_BUG_ON(arena->count == BF_ARENA_PIECES_MAX);
    if (bytes == 0)
        bytes = PAGE_BYTES;
    /* NORESERVE: the sum is a ceiling for everything at once, which the limits keep from happening
     */
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    /* huge pages would touch 2 MB for one record: the opposite of what a lazy pool is for */
    (void)madvise(at, bytes, MADV_NOHUGEPAGE);
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
        BF_INFO("dataplane", "worker %u memory: %-22s %9lu x %5lu B = %7lu KiB", worker, p->holder,
                (unsigned long)p->count, (unsigned long)p->item_bytes,
                (unsigned long)(p->mapped_bytes / 1024u));
    }
    BF_INFO("dataplane", "worker %u memory: at most %lu MiB, touched as it is needed", worker,
            (unsigned long)(arena->bytes >> 20));
}

void bf_arena_fini(struct bf_arena *arena)
{
    for (uint32_t i = 0; i < arena->count; i++)
        (void)munmap(arena->pieces[i].at, arena->pieces[i].mapped_bytes);
    arena->count = 0;
    arena->bytes = 0;
}
