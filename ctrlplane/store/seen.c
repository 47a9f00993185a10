/* See seen.h. */
#include "store/seen.h"

#include <sys/mman.h>

#include "store/store_impl.h"

/* Between looks at the stop flag. */
#define ROWS_PER_LOOK 4096u

static void *fill(void *arg)
{
    struct bf_store *s = arg;
    struct bf_seen *seen = &s->seen;
    struct bf_key prefix;
    struct bf_scan scan;
    uint32_t rows = 0;
    bool stopped = false;
    bf_key_begin(&prefix, BF_T_ID);
    bf_scan_open(&scan, s, &prefix, NULL, BF_SCAN_BULK);
    while (!stopped && bf_scan_next(&scan)) {
        struct bf_id id;
        if (scan.key.len >= sizeof(id.bytes)) {
            memcpy(id.bytes, scan.key.at + scan.key.len - sizeof(id.bytes), sizeof(id.bytes));
            bf_seen_add(seen, &id);
        }
        if (++rows % ROWS_PER_LOOK == 0)
            stopped = atomic_load_explicit(&seen->stop, memory_order_relaxed);
    }
    /* an unreadable part may hide ids: then the filter never says no */
    if (bf_scan_close(&scan) == 0 && !stopped)
        atomic_store_explicit(&seen->is_complete, true, memory_order_release);
    return NULL;
}

void bf_seen_start(struct bf_seen *seen, struct bf_store *store)
{
    void *words = mmap(NULL, BF_SEEN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);
    seen->words = words == MAP_FAILED ? NULL : words;
    if (seen->words)
        seen->is_filling = pthread_create(&seen->thread, NULL, fill, store) == 0;
}

void bf_seen_stop(struct bf_seen *seen)
{
    atomic_store_explicit(&seen->stop, true, memory_order_relaxed);
    if (seen->is_filling)
        pthread_join(seen->thread, NULL);
    if (seen->words)
        munmap((void *)(uintptr_t)seen->words, BF_SEEN_BYTES);
    seen->words = NULL;
}
