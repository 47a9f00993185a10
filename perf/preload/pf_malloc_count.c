/*
 * Preloaded into a process under test: counts the calls that take memory from the heap (malloc,
 * calloc, realloc and the aligned ones), of all threads. The count lies in the file that
 * PF_MALLOC_COUNT names, where the benchmark reads it (lib/pf_heap.h). Without that variable it
 * counts for nobody.
 *
 * glibc: the real functions are reached under their __libc names, so that nothing here can recurse.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static _Atomic uint64_t unseen; /* counted before the file is mapped */
static _Atomic uint64_t *_Atomic count_at = &unseen;

static void count(void)
{
    /* relaxed: a number, nothing is published with it. acquire: the mapping it lies in */
    _Atomic uint64_t *at = atomic_load_explicit(&count_at, memory_order_acquire);
    atomic_fetch_add_explicit(at, 1, memory_order_relaxed);
}

__attribute__((constructor)) static void map_count(void)
{
    const char *path = getenv("PF_MALLOC_COUNT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        atomic_store_explicit(&count_at, page, memory_order_release);
}

void *malloc(size_t bytes)
{
    count();
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
    count();
    return __libc_calloc(n, bytes);
}

void *realloc(void *old, size_t bytes)
{
    count();
    return __libc_realloc(old, bytes);
}

void *memalign(size_t alignment, size_t bytes);
void *memalign(size_t alignment, size_t bytes)
{
    count();
    return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    count();
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **ret, size_t alignment, size_t bytes)
{
    count();
    void *at = __libc_memalign(alignment, bytes);
    if (!at)
        return ENOMEM;
    *ret = at;
    return 0;
}
