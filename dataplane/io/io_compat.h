/*
 * io_uring constants that the kernel has and liburing 2.3 (Debian 12) does not name. Values are the
 * kernel's ABI (include/uapi/linux/io_uring.h, linux/futex.h); newer headers define the same.
 */
#pragma once

#include <liburing.h>
#include <stdint.h>
#include <sys/socket.h>

/* Linux 6.7. An enum in newer headers, hence names of our own. */
#define BF_IORING_OP_FUTEX_WAIT 51
/* Linux 6.8: an ordinary descriptor for a direct one (only --raw uses it). */
#define BF_IORING_OP_FIXED_FD_INSTALL 54

/* Linux 6.7: socket options of direct descriptors. The opcode itself is older (5.19), so a probe
 * for it says nothing: bf_io tries one. */
#define BF_IORING_OP_URING_CMD 46
#define BF_SOCKET_GETSOCKOPT   2u
#define BF_SOCKET_SETSOCKOPT   3u

/* futex2 flags: a 32-bit word; without the private bit it is keyed by its page, across processes.
 */
#define BF_FUTEX2_SIZE_U32  0x02u
#define BF_FUTEX_BITSET_ANY 0xffffffffu

/* What liburing's io_uring_prep_futex_wait does from 2.5 on: waits while *word == expected. */
static inline void bf_prep_futex_wait(struct io_uring_sqe *sqe, uint32_t *word, uint32_t expected)
{
    io_uring_prep_rw(BF_IORING_OP_FUTEX_WAIT, sqe, (int)BF_FUTEX2_SIZE_U32, word, 0, expected);
    sqe->addr3 = BF_FUTEX_BITSET_ANY;
}

/* What liburing's io_uring_prep_cmd_sock does. Level and option share the word of the address, the
 * length that of the splice descriptor. The kernel reads options of SOL_SOCKET only and sets those
 * of any level. */
static inline void bf_prep_socket_option(struct io_uring_sqe *sqe, int fd, uint32_t command,
                                         uint32_t level, uint32_t option, const void *value,
                                         uint32_t len)
{
    io_uring_prep_rw(BF_IORING_OP_URING_CMD, sqe, fd, NULL, 0, command);
    sqe->addr = (uint64_t)level | (uint64_t)option << 32;
    sqe->splice_fd_in = (int)len;
    sqe->addr3 = (uint64_t)(uintptr_t)value;
}
