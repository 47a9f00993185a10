/*
 * Converts CloudEvents 1.0 into our event (PROVIDERS 8): structured (content-type
 * application/cloudevents+json) and binary mode (ce_* headers). The result is the JSON of a plain
 * event; bf_event_parse and the log see this one form only. Pure but for malloc.
 */
#pragma once

#include "ingest/event.h"

/*
 * |headers|: "name\0value\0..." with names in lower case: ce_* (or ce-*) and content-type, values
 * already percent-decoded. Whether the message is a CloudEvent (either mode).
 */
bool bf_cloudevent_is(struct bf_bytes headers);

/* Takes the next pair off |rest|, the bytes of |headers| that are left; borrowed from them. False
 * at the end, or where a pair is cut short. */
bool bf_cloudevent_next_header(struct bf_bytes *rest, struct bf_bytes *ret_name,
                               struct bf_bytes *ret_value);

/*
 * Converts. Attributes id, source and type become the event's fields (data may repeat them, equal),
 * expirytime becomes expires_at; specversion, time and datacontenttype are checked. Returns 0 and a
 * malloc'ed text (caller frees), or BF_ERR_MALFORMED / _TOO_LARGE / _UTF8 / -ENOMEM with *problem.
 */
int bf_cloudevent_convert(struct bf_bytes headers, struct bf_bytes body, char **ret_json,
                          size_t *ret_len, struct bf_problem *problem);
