/*
 * How much memory a worker takes at the start and for what: sums with one named holder on each line
 * (after TigerBeetle's message pool). Only numbers are made here; memory/arena.h maps the memory.
 */
#pragma once

#include <stdint.h>

/* What the configuration and the io plan say. */
struct bf_memory_plan_input {
    uint32_t connections; /* connections_max */
    uint32_t slots;       /* rings x table */
    uint64_t blocks;      /* of the region */
};

struct bf_memory_plan {
    uint32_t nodes;
    uint32_t locals;
    uint32_t pendings;
    uint32_t grants;
    uint32_t streams; /* clients of server-sent events */
    uint32_t subs;
    uint32_t topics; /* power of two */
    uint32_t user_entries;
    uint32_t receive_buffers;
    uint32_t receptions; /* connections inside a message or a request */
    uint32_t stashes;
    uint32_t contexts;
    uint32_t cipher_small; /* ciphertext that sockets have not taken, by size */
    uint32_t cipher_medium;
    uint32_t cipher_large;
};

/* Sizes of ciphertext buffers: most sends are one small frame; a full record fits the largest. */
#define BF_CIPHER_SMALL_BYTES  1024u
#define BF_CIPHER_MEDIUM_BYTES 4096u
#define BF_CIPHER_LARGE_BYTES  16512u

/* Receive buffers: a turn reaps at most 256 completions, and a receive is through when it was
 * submitted, so no more than two turns' worth are out. The aux bits of user_data name up to 4,096.
 */
#define BF_RECEIVE_BUFFERS      512u
#define BF_RECEIVE_BUFFER_BYTES 4096u
/* wslay contexts with a whole message each (25 KB): few clients cut their frames. */
#define BF_RX_CONTEXTS 128u
/* Requests that came in pieces, and bytes that wait for a context; 8 KiB each, touched when used.
 */
#define BF_RX_STASHES 1024u

struct bf_memory_plan bf_memory_plan_of(const struct bf_memory_plan_input *in);
