/* What this kernel's io_uring can do beyond what Belfry requires. Tried, not concluded from the
 * version: distributions backport. */
#pragma once

#include <liburing.h>
#include <stdbool.h>

/* Whether the ring can wait for a futex (Linux 6.7). A kernel that does not answer the probe
 * cannot.
 */
bool bf_kernel_has_futex(struct io_uring *ring);

/*
 * Whether a direct descriptor's file is let go when it is closed. Before Linux 6.13 it stays until
 * every request of the ring has ended that used any direct descriptor before the close: with one
 * idle connection under poll that is never, so sockets pile up and their peers see no end (liburing
 * issue 1192). Opens a ring of its own. True also if there is none to be had: opening the real one
 * says why.
 */
bool bf_kernel_lets_direct_go(void);
