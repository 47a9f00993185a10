/* Ids by hash; see identity.h. XXH3-128: fast and well mixed; the ids are names, not secrets. */
#include "ingest/identity.h"

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "belfry/base/bug.h"

/* Room for the parts of any id below; a longer part goes in as its hash. */
#define PARTS_BYTES_MAX 2048u
#define PART_BYTES_MAX  512u

static void put_part(struct bf_writer *w, struct bf_bytes part)
{
    if (part.len <= PART_BYTES_MAX) {
        bf_put_str16(w, part);
        return;
    }
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(part.at, part.len));
    bf_put_u16(w, UINT16_MAX); /* no plain part is that long */
    bf_put_raw(w, hash.digest, sizeof(hash.digest));
}

static void finish(const struct bf_writer *w, struct bf_id *ret_id)
{
    XXH128_canonical_t hash;
    BF_BUG_ON(w->failed);
    XXH128_canonicalFromHash(&hash, XXH3_128bits(w->buf, w->len));
    memcpy(ret_id->bytes, hash.digest, sizeof(ret_id->bytes));
    bf_id_seal(ret_id);
}

/* The first part says which kind of id it is: equal texts of two kinds must not meet. */
static void hash_texts(struct bf_bytes kind, struct bf_bytes a, struct bf_bytes b,
                       struct bf_bytes c, struct bf_id *ret_id)
{
    uint8_t parts[PARTS_BYTES_MAX];
    struct bf_writer w = {.buf = parts, .cap = sizeof(parts)};
    put_part(&w, kind);
    put_part(&w, a);
    put_part(&w, b);
    put_part(&w, c);
    finish(&w, ret_id);
}

void bf_identity_of_source(struct bf_bytes tenant, struct bf_bytes source, struct bf_bytes id,
                           struct bf_id *ret_id)
{
    hash_texts(BF_BYTES("source"), tenant, source, id, ret_id);
}

void bf_identity_of_key(struct bf_bytes tenant, struct bf_bytes producer, struct bf_bytes key,
                        struct bf_id *ret_id)
{
    hash_texts(BF_BYTES("key"), tenant, producer, key, ret_id);
}

void bf_identity_of_position(struct bf_bytes topic, int32_t partition, int64_t offset,
                             struct bf_id *ret_id)
{
    uint8_t place[12];
    struct bf_writer w = {.buf = place, .cap = sizeof(place)};
    bf_put_u32(&w, (uint32_t)partition);
    bf_put_u64(&w, (uint64_t)offset);
    hash_texts(BF_BYTES("position"), topic, (struct bf_bytes){(char *)place, w.len}, BF_BYTES(""),
               ret_id);
}

void bf_identity_of_record(struct bf_bytes topic, int32_t partition, int64_t offset,
                           int64_t written_at, struct bf_bytes body, struct bf_id *ret_id)
{
    uint8_t place[36];
    struct bf_writer w = {.buf = place, .cap = sizeof(place)};
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(body.len > 0 ? body.at : "", body.len));
    bf_put_u32(&w, (uint32_t)partition);
    bf_put_u64(&w, (uint64_t)offset);
    bf_put_u64(&w, (uint64_t)written_at);
    bf_put_raw(&w, hash.digest, sizeof(hash.digest));
    hash_texts(BF_BYTES("record"), topic, (struct bf_bytes){(char *)place, w.len}, BF_BYTES(""),
               ret_id);
}

void bf_message_id(const struct bf_id *event, struct bf_bytes tenant, struct bf_bytes user,
                   enum bf_channel channel, struct bf_bytes target, uint32_t redrive,
                   struct bf_id *ret_id)
{
    uint8_t parts[PARTS_BYTES_MAX];
    struct bf_writer w = {.buf = parts, .cap = sizeof(parts)};
    put_part(&w, BF_BYTES("message"));
    bf_put_raw(&w, event->bytes, sizeof(event->bytes));
    put_part(&w, tenant);
    put_part(&w, user);
    bf_put_u8(&w, (uint8_t)channel);
    put_part(&w, target);
    bf_put_u32(&w, redrive);
    finish(&w, ret_id);
    memcpy(ret_id->bytes, event->bytes, BF_MESSAGE_PREFIX_BYTES);
}
