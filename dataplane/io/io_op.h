/* Names of requests in io_uring's user_data: op 8, aux 12, generation 20, slot 24 bits. No
 * pointers. */
#pragma once

#include "io/io.h"

#define BF_IO_SLOT_BITS 24u
#define BF_IO_AUX_BITS  12u

static inline uint64_t bf_io_name(enum bf_io_op op, uint16_t aux, uint32_t generation,
                                  uint32_t slot)
{
    return (uint64_t)op << 56 | (uint64_t)aux << 44 |
           (uint64_t)(generation & BF_IO_GENERATION_MASK) << BF_IO_SLOT_BITS | slot;
}

static inline struct bf_io_event bf_io_event_of(uint64_t name)
{
    return (struct bf_io_event){
        .op = (uint8_t)(name >> 56),
        .aux = (uint16_t)(name >> 44 & ((1u << BF_IO_AUX_BITS) - 1u)),
        .generation = (uint32_t)(name >> BF_IO_SLOT_BITS) & BF_IO_GENERATION_MASK,
        .slot = (uint32_t)name & ((1u << BF_IO_SLOT_BITS) - 1u),
    };
}

_Static_assert(8 + BF_IO_AUX_BITS + BF_IO_GENERATION_BITS + BF_IO_SLOT_BITS == 64, "one word");
