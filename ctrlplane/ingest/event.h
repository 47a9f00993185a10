/*
 * An event as producers write it (DESIGN 6), parsed and checked: the same for HTTP, Kafka and
 * CloudEvents, from the one field table event_fields.def. Bytes in, one allocation out; no I/O.
 * Any thread; an event belongs to whoever holds a reference.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/id.h"
#include "belfry/base/limits.h"
#include "terms/channel.h"
#include "terms/lane.h"
#include "terms/problem.h"
#include "terms/target.h"

/* Where the event came from. It decides which fields may be set and what happens to unknown ones.
 */
enum bf_event_source {
    BF_SOURCE_HTTP = 0,  /* unknown field: refused by name */
    BF_SOURCE_KAFKA = 1, /* unknown field: ignored and counted in .unknown_fields */
};

/* What is known about an event, beside its body, when it comes in. It is stored in the log together
 * with the body. */
struct bf_event_meta {
    enum bf_event_source source;
    enum bf_lane topic_lane; /* lane of the log topic it came by; HTTP: critical */
    bool critical_allowed;   /* key or topic has that scope; else priority critical is refused */
    uint64_t accepted_ms;    /* wall; Kafka: record timestamp */
    char tenant[BF_TENANT_BYTES_MAX + 1]; /* of the API key; "" = default */
    char producer[65];                    /* API key id, or Kafka topic */
    char traceparent[56];                 /* "" = none */
    bool has_event_id; /* HTTP: the id given in the 202, so that a replay has the same */
    struct bf_id event_id;
    /* Kafka position, for events that carry no id (DESIGN 4.4) */
    int32_t partition;
    int64_t offset;
    bool has_record_id; /* else the position alone, as earlier versions wrote it */
    struct bf_id record_id;
};

struct bf_event {
    _Atomic uint32_t refs;
    struct bf_event_meta meta;
    struct bf_id id; /* H(tenant, source, id), H(tenant, key, idempotency key) or record_id */
    enum bf_target target;
    enum bf_lane lane; /* the lower of priority's and the topic's (DESIGN 4.12) */
    bool is_critical;  /* priority critical, and allowed */
    bool transient;
    bool channels_named;  /* `channels` was given */
    bool is_fallback;     /* `fallback`: channels in order, each only if the one before failed */
    bool is_push_channel; /* overrides.push.apns.channel: one push to an APNs broadcast channel */
    enum bf_channel first_channel; /* the first in `channels`; BF_CHANNEL_INAPP if none is */
    uint8_t channel_mask;          /* 1u << enum bf_channel; inapp and push when none was named */
    uint32_t recipient_count;
    struct bf_bytes *recipients;
    struct bf_bytes topic; /* target, or attribute (order, mute) */
    struct bf_bytes type, category, source, ext_id;
    struct bf_bytes title, body; /* unescaped */
    struct bf_bytes collapse_key, dedup_key, idempotency_key;
    uint64_t created_ms; /* = meta.accepted_ms */
    uint64_t expires_ms; /* wall; 0: the default of the channel */
    uint64_t scheduled_ms;
    uint32_t unknown_fields;
    /* What the frames of all recipients have in common, made once, as members of a JSON object
     * without braces:
     * "type":..,"category":..,"topic":..,"title":..,"body":..,"data":..,"action_url":..,"actions":..,
     * "collapse_key":..,"expires":<ms>,"ts":<ms>  (absent ones left out). Never empty. */
    struct bf_bytes fragment;
    struct bf_bytes overrides; /* overrides.push as JSON, "" = none */
};

/*
 * Parses and checks one event. Returns 0 and *ret_event (one reference, the caller's), or
 * BF_ERR_MALFORMED / _TOO_LARGE / _UTF8 / _DENIED / -ENOMEM with *problem filled. Fields of work
 * that this node does not do (segment, scheduled_at, template_id, channels other than inapp and
 * push, ...) are refused by name, never ignored.
 */
int bf_event_parse(struct bf_bytes json, const struct bf_event_meta *meta,
                   struct bf_event **ret_event, struct bf_problem *problem);
void bf_event_ref(struct bf_event *event);
void bf_event_unref(struct bf_event *event); /* NULL is fine */

/* Message id (DESIGN 4.4): UUID of H(event, tenant, recipient, channel, target, redrive number). */
void bf_message_id(const struct bf_id *event, struct bf_bytes tenant, struct bf_bytes user,
                   enum bf_channel channel, struct bf_bytes target, uint32_t redrive,
                   struct bf_id *ret_id);

/* Log form of meta: base/cursor.h, versioned. Encode returns bytes (<= BF_EVENT_META_BYTES_MAX). */
#define BF_EVENT_META_BYTES_MAX 512u
size_t bf_event_meta_encode(const struct bf_event_meta *meta, uint8_t out[BF_EVENT_META_BYTES_MAX]);
int bf_event_meta_decode(const uint8_t *bytes, size_t len, struct bf_event_meta *ret_meta);
