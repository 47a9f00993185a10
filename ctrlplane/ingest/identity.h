/* Identity of events (DESIGN 4.4): hashes of length-prefixed parts, so that no two lists of parts
 * collide by moving a boundary. Pure; any thread. */
#pragma once

#include "ingest/event.h"

/* H(tenant, source, id) of an event that names itself. */
void bf_identity_of_source(struct bf_bytes tenant, struct bf_bytes source, struct bf_bytes id,
                           struct bf_id *ret_id);
/* H(tenant, producer, idempotency key). */
void bf_identity_of_key(struct bf_bytes tenant, struct bf_bytes producer, struct bf_bytes key,
                        struct bf_id *ret_id);
/* H(topic, partition, offset) of one that does neither. */
void bf_identity_of_position(struct bf_bytes topic, int32_t partition, int64_t offset,
                             struct bf_id *ret_id);
