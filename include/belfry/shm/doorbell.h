/*
 * Doorbell: one futex word a sleeper (DESIGN 2).
 *
 *   sleeper: bf_doorbell_arm (arm=1, seq_cst fence) -> re-check every ring -> if all empty, wait
 *            with expected value 1 and a timeout of BF_DOORBELL_TIMEOUT_MS as a net -> disarm
 *   waker:   publish -> bf_doorbell_ring (seq_cst fence; exchange(arm,0)==1 -> FUTEX_WAKE)
 *
 * The two seq_cst fences make "sleeper saw the ring empty" and "waker saw arm==0" impossible
 * together (without them, store buffers allow it: with release/acquire alone both sides can read
 * the old value). Shared futex, not FUTEX_PRIVATE_FLAG: the word is a hugepage word of two
 * processes. A worker waits by io_uring FUTEX_WAIT on the same word; a pending wait is kept, not
 * repeated.
 */
#pragma once

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct bf_doorbell {
    _Atomic uint32_t arm;
    uint8_t _pad[60];
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct bf_doorbell) == 64, "a doorbell has a cache line of its own");

/* Sleeper. After it, every ring must be looked at once more before sleeping. */
static inline void bf_doorbell_arm(struct bf_doorbell *bell)
{
    atomic_store_explicit(&bell->arm, 1, memory_order_relaxed); /* the fence orders it */
    atomic_thread_fence(memory_order_seq_cst);
}

/* Sleeper, awake again. Relaxed: a waker that still sees 1 makes one needless FUTEX_WAKE. */
static inline void bf_doorbell_disarm(struct bf_doorbell *bell)
{
    atomic_store_explicit(&bell->arm, 0, memory_order_relaxed);
}

/* Waker, after its publish. Returns true if a wake was sent. Any thread that owns a ring end. */
static inline bool bf_doorbell_ring(struct bf_doorbell *bell)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&bell->arm, memory_order_relaxed) == 0)
        return false; /* awake: the exchange would only bounce the line */
    if (atomic_exchange_explicit(&bell->arm, 0, memory_order_relaxed) != 1)
        return false;
    (void)syscall(SYS_futex, (uint32_t *)(void *)&bell->arm, FUTEX_WAKE, 1, NULL, NULL, 0);
    return true;
}

/* Sleeper that has no io_uring (ctrlplane). Returns true on a wake, false on the timeout. */
static inline bool bf_doorbell_wait(struct bf_doorbell *bell, uint32_t timeout_ms)
{
    struct timespec ts = {.tv_sec = timeout_ms / 1000u,
                          .tv_nsec = (long)(timeout_ms % 1000u) * 1000000L};
    long rc = syscall(SYS_futex, (uint32_t *)(void *)&bell->arm, FUTEX_WAIT, 1, &ts, NULL, 0);
    return !(rc == -1 && errno == ETIMEDOUT);
}
