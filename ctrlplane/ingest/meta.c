/* How an event's meta is stored in the log, beside the body. Pure; any thread. */
#include <string.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "ingest/event.h"

#define META_VERSION 1u
/* With a record id at the end. Only what the node writes for itself has one: the header of records
 * on Kafka stays readable for nodes of the version before. */
#define META_VERSION_RECORD 2u

#define META_CRITICAL_ALLOWED (1u << 0)
#define META_HAS_EVENT_ID     (1u << 1)

static struct bf_bytes text(const char *s)
{
    return (struct bf_bytes){.at = s, .len = strlen(s)};
}

size_t bf_event_meta_encode(const struct bf_event_meta *meta, uint8_t out[BF_EVENT_META_BYTES_MAX])
{
    struct bf_writer w = {.buf = out, .cap = BF_EVENT_META_BYTES_MAX};
    unsigned flags = (meta->critical_allowed ? META_CRITICAL_ALLOWED : 0u) |
                     (meta->has_event_id ? META_HAS_EVENT_ID : 0u);
    bf_put_u8(&w, meta->has_record_id ? META_VERSION_RECORD : META_VERSION);
    bf_put_u8(&w, (uint8_t)meta->source);
    bf_put_u8(&w, (uint8_t)meta->topic_lane);
    bf_put_u8(&w, (uint8_t)flags);
    bf_put_u64(&w, meta->accepted_ms);
    bf_put_u32(&w, (uint32_t)meta->partition);
    bf_put_u64(&w, (uint64_t)meta->offset);
    bf_put_raw(&w, meta->event_id.bytes, sizeof(meta->event_id.bytes));
    bf_put_str16(&w, text(meta->tenant));
    bf_put_str16(&w, text(meta->producer));
    bf_put_str16(&w, text(meta->traceparent));
    if (meta->has_record_id)
        bf_put_raw(&w, meta->record_id.bytes, sizeof(meta->record_id.bytes));
    BF_BUG_ON(w.failed); /* the fields' sizes bound it far below the maximum */
    return w.len;
}

static void copy_text(struct bf_reader *r, char *out, size_t cap)
{
    struct bf_bytes got = bf_get_str16(r);
    if (r->failed || got.len >= cap || (got.len > 0 && memchr(got.at, 0, got.len))) {
        r->failed = true;
        return;
    }
    if (got.len > 0)
        memcpy(out, got.at, got.len);
    out[got.len] = '\0';
}

int bf_event_meta_decode(const uint8_t *bytes, size_t len, struct bf_event_meta *ret_meta)
{
    struct bf_reader r = {.buf = bytes, .len = len};
    struct bf_event_meta meta = {0};
    unsigned version = bf_get_u8(&r);
    unsigned source = bf_get_u8(&r);
    unsigned lane = bf_get_u8(&r);
    unsigned flags = bf_get_u8(&r);
    meta.accepted_ms = bf_get_u64(&r);
    meta.partition = (int32_t)bf_get_u32(&r);
    meta.offset = (int64_t)bf_get_u64(&r);
    const uint8_t *id = bf_get_raw(&r, sizeof(meta.event_id.bytes));
    copy_text(&r, meta.tenant, sizeof(meta.tenant));
    copy_text(&r, meta.producer, sizeof(meta.producer));
    copy_text(&r, meta.traceparent, sizeof(meta.traceparent));
    meta.has_record_id = version == META_VERSION_RECORD;
    const uint8_t *record =
        meta.has_record_id ? bf_get_raw(&r, sizeof(meta.record_id.bytes)) : NULL;
    if (r.failed || r.at != len || version < META_VERSION || version > META_VERSION_RECORD ||
        source > BF_SOURCE_KAFKA || lane >= BF_LANE_COUNT)
        return BF_ERR_CORRUPT;
    meta.source = (enum bf_event_source)source;
    meta.topic_lane = (enum bf_lane)lane;
    meta.critical_allowed = (flags & META_CRITICAL_ALLOWED) != 0;
    meta.has_event_id = (flags & META_HAS_EVENT_ID) != 0;
    if (meta.has_record_id)
        memcpy(meta.record_id.bytes, record, sizeof(meta.record_id.bytes));
    memcpy(meta.event_id.bytes, id, sizeof(meta.event_id.bytes));
    *ret_meta = meta;
    return 0;
}
