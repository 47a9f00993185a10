/* See seen.h. */
#include "store/rocks/seen.h"

#include <sys/mman.h>

void bf_seen_create(struct bf_seen *seen)
{
    void *words =
        mmap(NULL, BF_SEEN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    seen->words = words == MAP_FAILED ? NULL : words;
}

void bf_seen_complete(struct bf_seen *seen)
{
    /* release: whoever reads "complete" sees all that was added */
    atomic_store_explicit(&seen->is_complete, true, memory_order_release);
}

void bf_seen_destroy(struct bf_seen *seen)
{
    if (seen->words)
        munmap((void *)(uintptr_t)seen->words, BF_SEEN_BYTES);
    seen->words = NULL;
}
