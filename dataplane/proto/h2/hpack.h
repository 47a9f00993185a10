/*
 * Header fields of our requests as HPACK (RFC 7541): the encoder of a connection. The requests to a
 * provider differ in two or three of ten fields, so each of the others becomes one byte; strings
 * are written as they are, because Huffman coding takes longer than encrypting the fifth that it
 * would save. No I/O. The table's memory comes from the sessions' (h2_memory.h) with the first
 * field that is kept there; without memory fields are literals. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "proto/h2/h2_memory.h"

/* The table that we use at most: the default (RFC 9113 section 6.5.2). A peer may allow less. */
#define BF_HPACK_TABLE_BYTES 4096u
/* What an entry counts beside its strings (RFC 7541 section 4.1). */
#define BF_HPACK_ENTRY_EXTRA 32u
/* So never more entries; a power of two. */
#define BF_HPACK_ENTRIES_MAX (BF_HPACK_TABLE_BYTES / BF_HPACK_ENTRY_EXTRA)
/* Room for strings at first: the constant fields of APNs' requests have about 400 bytes. */
#define BF_HPACK_TEXT_BYTES 1024u
/* What a field takes at most beside its strings: an index and two lengths. */
#define BF_HPACK_FIELD_EXTRA 8u
/* What the changes of the table's size in front of a block take. */
#define BF_HPACK_BEGIN_BYTES_MAX 8u

struct bf_hpack_entry {
    uint16_t at; /* in text: name, then value */
    uint16_t name_len;
    uint16_t value_len;
};

struct bf_hpack {
    struct bf_h2_memory *memory;
    struct bf_hpack_entry *entries; /* BF_HPACK_ENTRIES_MAX of them, a ring */
    uint8_t *text;                  /* their strings, from the oldest to the newest */
    uint32_t text_cap;
    uint32_t oldest;
    uint32_t count;
    uint32_t used;     /* by the RFC's count */
    uint32_t capacity; /* as the peer's decoder has it */
    uint32_t allowed;  /* by the peer's settings, from the next block on */
    uint32_t least;    /* the smallest that it allowed since the last block */
};

enum bf_hpack_mode {
    BF_HPACK_INDEXED = 0, /* the same in many requests: one byte once it is in the table */
    BF_HPACK_UNIQUE = 1,  /* another value each time: the first is indexed, for its name */
    BF_HPACK_LITERAL = 2, /* never touches the table */
};

void bf_hpack_init(struct bf_hpack *h, struct bf_h2_memory *memory);
void bf_hpack_fini(struct bf_hpack *h);
/* A SETTINGS_HEADER_TABLE_SIZE of the peer, in the order in which they come. */
void bf_hpack_allow(struct bf_hpack *h, uint32_t bytes);
/* Begins a block: says how the table's size has changed. Returns the bytes, at most
 * BF_HPACK_BEGIN_BYTES_MAX. */
size_t bf_hpack_begin(struct bf_hpack *h, uint8_t *to);
/* Appends a field; |name| and |value| have at most 65,535 bytes each. Returns the bytes, at most
 * both lengths and BF_HPACK_FIELD_EXTRA. */
size_t bf_hpack_field(struct bf_hpack *h, struct bf_bytes name, struct bf_bytes value,
                      enum bf_hpack_mode mode, uint8_t *to);
