/* Key encodings that are not worth inlining, and the end of a key range. Pure. */
#include "store/keys.h"

#include <xxhash.h>

static void put_attempt(struct bf_key *k, const struct bf_attempt_key *attempt)
{
    static const struct bf_id none;
    if (!bf_id_is_equal(&attempt->endpoint, &none))
        bf_key_raw(k, attempt->endpoint.bytes, sizeof(attempt->endpoint.bytes));
    bf_key_be16(k, attempt->attempt);
}

void bf_key_get_attempt(struct bf_reader *k, struct bf_attempt_key *ret)
{
    *ret = (struct bf_attempt_key){0};
    if (k->len - k->at > sizeof(uint16_t)) {
        const uint8_t *id = bf_get_raw(k, sizeof(ret->endpoint.bytes));
        if (id)
            memcpy(ret->endpoint.bytes, id, sizeof(ret->endpoint.bytes));
    }
    uint8_t high = bf_get_u8(k);
    ret->attempt = (uint16_t)(high << 8 | bf_get_u8(k));
}

void bf_key_outcome(struct bf_key *k, const struct bf_id *event_id, struct bf_uid uid,
                    uint8_t channel, const struct bf_attempt_key *attempt)
{
    bf_key_id(k, BF_T_OUTCOME, event_id);
    bf_key_part(k, uid.tenant);
    bf_key_part(k, uid.user);
    bf_key_u8(k, channel);
    put_attempt(k, attempt);
}

void bf_key_user_outcome(struct bf_key *k, struct bf_uid uid, const struct bf_id *event_id,
                         uint8_t channel, const struct bf_attempt_key *attempt)
{
    bf_key_uid(k, BF_T_USER_OUTCOME, uid);
    bf_key_raw(k, event_id->bytes, sizeof(event_id->bytes));
    bf_key_u8(k, channel);
    put_attempt(k, attempt);
}

void bf_key_idem(struct bf_key *k, struct bf_bytes key)
{
    bf_key_begin(k, BF_T_IDEM);
    if (key.len <= BF_IDEM_KEY_BYTES_MAX) {
        bf_key_raw(k, key.at, key.len);
        return;
    }
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(key.at, key.len));
    bf_key_raw(k, hash.digest, sizeof(hash.digest));
}

void bf_key_erased(struct bf_key *k, struct bf_uid uid)
{
    struct bf_key whole;
    XXH128_canonical_t hash;
    bf_key_uid(&whole, BF_T_ERASED, uid);
    XXH128_canonicalFromHash(&hash, XXH3_128bits(whole.at, whole.len));
    bf_key_begin(k, BF_T_ERASED);
    bf_key_raw(k, hash.digest, sizeof(hash.digest));
}

uint64_t bf_uid_hash(struct bf_uid uid)
{
    struct bf_key whole;
    bf_key_uid(&whole, BF_T_ID, uid);
    return XXH3_64bits(whole.at, whole.len);
}

void bf_key_end(struct bf_key *end, const struct bf_key *prefix)
{
    *end = *prefix;
    while (end->len > 0 && end->at[end->len - 1] == UINT8_MAX)
        end->len--;
    BF_BUG_ON(end->len == 0); /* table bytes are small: the first byte never overflows */
    end->at[end->len - 1]++;
}
