/* A connect that is not answered yet: from the acceptance of its token until the WELCOME. Owner:
 * one worker thread. */
#pragma once

#include <stdint.h>

#include "belfry/base/limits.h"

/* Who the token names, and what the connect asked for. */
struct bf_pending {
    uint64_t resume_seq[BF_LANE_COUNT];
    uint64_t resume_b;
    uint64_t resume_epoch_hash;
    uint64_t token_expires_ms; /* wall */
    uint64_t connected_ms;     /* wall */
    uint32_t flags;            /* BF_CONNECT_* */
    uint32_t grant;            /* topics that the token allows, 0 = none */
    uint16_t user_len;
    uint16_t device_len;
    uint16_t tenant_len;
    uint16_t reserved;
    char user[BF_USER_ID_BYTES_MAX];
    char device[BF_DEVICE_BYTES_MAX];
    char tenant[BF_TENANT_BYTES_MAX];
};
