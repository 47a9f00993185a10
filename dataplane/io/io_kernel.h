/* What this kernel's io_uring can do beyond what Belfry requires. It is tried, not concluded from
 * the version, because distributions backport features. */
#pragma once

#include <liburing.h>
#include <stdbool.h>

/* Whether the ring can wait for a futex (Linux 6.7). A kernel that does not know the probe cannot
 * do it. */
bool bf_kernel_has_futex(struct io_uring *ring);

/*
 * Whether the kernel releases the file of a direct descriptor when that is closed. Before Linux
 * 6.13 it stays until every request of the ring has ended that used any direct descriptor before
 * the close: with one idle connection under poll that is never, so sockets pile up and their peers
 * see no end (liburing issue 1192). Opens a ring of its own for the test. True also if that cannot
 * be opened: opening the real one then says why.
 */
bool bf_kernel_lets_direct_go(void);
