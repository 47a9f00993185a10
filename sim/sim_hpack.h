/*
 * HPACK decoder (RFC 7541): header block bytes in, fields out. Sans-IO, no allocation. One decoder
 * a connection. Encoding is left to the answers' fixed bytes: literals without indexing need no
 * state.
 */
#pragma once

#include "sim_types.h"

#define SIM_HPACK_TABLE_BYTES                                                                      \
    4096u /* SETTINGS_HEADER_TABLE_SIZE's default, as we announce no other */
#define SIM_HPACK_ENTRY_EXTRA 32u /* RFC 7541 4.1 */
#define SIM_HPACK_ENTRIES_MAX (SIM_HPACK_TABLE_BYTES / SIM_HPACK_ENTRY_EXTRA)
#define SIM_HPACK_STRING_MAX                                                                       \
    8192u /* of one name or value, decoded; longer is refused as an attack */
#define SIM_HPACK_STATIC_COUNT 61u

struct sim_hpack_entry {
    uint32_t at; /* in bytes[]: name, then value */
    uint16_t name_n, value_n;
    int16_t tag; /* what the name was found to be, see sim_hpack_tag */
};

struct sim_hpack {
    struct sim_hpack_entry entries[SIM_HPACK_ENTRIES_MAX]; /* ring, newest at head - 1 */
    uint32_t head, count;
    uint32_t size, size_max; /* by RFC 7541's count; size_max as the encoder chose */
    uint32_t bytes_end;      /* where the next entry's bytes go */
    char bytes[2 * SIM_HPACK_TABLE_BYTES];
    char name[SIM_HPACK_STRING_MAX], value[SIM_HPACK_STRING_MAX]; /* scratch of one field */
};

struct sim_hpack_field {
    struct sim_slice name, value; /* valid until the next field is decoded */
    int tag;
};

/* Gives a name its tag, kept with the table's entries so that an indexed field needs no look-up. */
typedef int (*sim_hpack_tag)(struct sim_slice name);

/* Builds the tables that all decoders share. Once, before the first decoder, one thread. */
void sim_hpack_setup(sim_hpack_tag tag);
void sim_hpack_init(struct sim_hpack *h);

/* Decodes the next field of the block [*p, end). 1 with a field in |ret|, 0 at the block's end, -1
 * when the block breaks RFC 7541: a connection error, COMPRESSION_ERROR. */
int sim_hpack_next(struct sim_hpack *h, const uint8_t **p, const uint8_t *end,
                   struct sim_hpack_field *ret);

/* Decodes a Huffman string. Returns its length, -1: bad padding, EOS inside, or longer than |size|.
 */
int sim_hpack_huffman(const uint8_t *p, size_t n, char *out, size_t size);
