/* Identity of events (DESIGN 4.4): hashes of parts that each have their length in front, so that
 * "ab","c" and "a","bc" differ. Pure; any thread. */
#pragma once

#include "ingest/event.h"

/* H(tenant, source, id) of an event that names itself. */
void bf_identity_of_source(struct bf_bytes tenant, struct bf_bytes source, struct bf_bytes id,
                           struct bf_id *ret_id);
/* H(tenant, producer, idempotency key). */
void bf_identity_of_key(struct bf_bytes tenant, struct bf_bytes producer, struct bf_bytes key,
                        struct bf_id *ret_id);
/* H(topic, partition, offset, time, body) of an event without either. The place alone is not
 * enough: a topic or a cluster that was deleted and created again counts its offsets from 0 again,
 * so another event can lie at the same place. The same record, read again, has all five in common.
 */
void bf_identity_of_record(struct bf_bytes topic, int32_t partition, int64_t offset,
                           int64_t written_at, struct bf_bytes body, struct bf_id *ret_id);
/* The same without time and body, as earlier versions made it, to find what they stored. */
void bf_identity_of_position(struct bf_bytes topic, int32_t partition, int64_t offset,
                             struct bf_id *ret_id);
