/* See io_kernel.h. */
#include "io/io_kernel.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/io_compat.h"

/* The end of a socket reaches its peer before the call that closes it returns; a margin. */
#define END_WAIT_MS 20

enum { STAYS, GOES, FILES };

bool bf_kernel_has_futex(struct io_uring *ring)
{
    const int op = BF_IORING_OP_FUTEX_WAIT;
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool has = probe && op <= probe->last_op && (probe->ops[op].flags & IO_URING_OP_SUPPORTED);
    io_uring_free_probe(probe);
    return has;
}

/* Puts one end of each pair into the table and closes ours: the table's is the only one left. */
static bool fill_table(struct io_uring *ring, int pairs[FILES][2])
{
    if (io_uring_register_files_sparse(ring, FILES) != 0)
        return false;
    for (unsigned i = 0; i < FILES; i++) {
        if (io_uring_register_files_update(ring, i, &pairs[i][0], 1) != 1)
            return false;
        close(pairs[i][0]);
        pairs[i][0] = -1;
    }
    return true;
}

/* A poll waits at one descriptor for ever; the other is closed. Does its peer see that? */
static bool try_close(struct io_uring *ring, int peer)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    io_uring_prep_poll_add(sqe, STAYS, POLLIN);
    sqe->flags |= IOSQE_FIXED_FILE;
    sqe = io_uring_get_sqe(ring);
    io_uring_prep_close_direct(sqe, GOES);
    if (io_uring_submit_and_wait(ring, 1) < 0)
        return false;
    struct pollfd end = {.fd = peer, .events = POLLIN};
    return poll(&end, 1, END_WAIT_MS) == 1;
}

bool bf_kernel_lets_direct_go(void)
{
    struct io_uring ring;
    int pairs[FILES][2] = {{-1, -1}, {-1, -1}};
    if (io_uring_queue_init(FILES, &ring, 0) != 0)
        return true;
    bool goes = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[STAYS]) == 0 &&
                socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[GOES]) == 0 &&
                fill_table(&ring, pairs) && try_close(&ring, pairs[GOES][1]);
    io_uring_queue_exit(&ring);
    for (unsigned i = 0; i < FILES; i++)
        for (unsigned end = 0; end < 2; end++)
            if (pairs[i][end] >= 0)
                close(pairs[i][end]);
    return goes;
}
