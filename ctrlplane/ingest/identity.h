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
/* H(topic, partition, offset, time, body) of one that does neither. The place alone is not enough:
 * a topic or a cluster that was made anew begins its offsets again, and what lies there is another
 * event. The same record read again has all five in common. */
void bf_identity_of_record(struct bf_bytes topic, int32_t partition, int64_t offset,
                           int64_t written_at, struct bf_bytes body, struct bf_id *ret_id);
/* The same without time and body, as earlier versions had it: of what they left in the store. */
void bf_identity_of_position(struct bf_bytes topic, int32_t partition, int64_t offset,
                             struct bf_id *ret_id);
