/* UTF-8 validation; see utf8.h. Eight ASCII bytes at a time, the rest by the table of RFC 3629. */
#include "ingest/utf8.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the sequence that begins with |lead|, and the allowed range of its second byte; 0: none. */
static unsigned sequence(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (lead < 0xc2)
        return 0;
    if (lead < 0xe0)
        return 2;
    if (lead < 0xf0) {
        if (lead == 0xe0)
            *low = 0xa0; /* overlong */
        if (lead == 0xed)
            *high = 0x9f; /* surrogates */
        return 3;
    }
    if (lead == 0xf0)
        *low = 0x90; /* overlong */
    if (lead == 0xf4)
        *high = 0x8f; /* above U+10FFFF */
    return lead < 0xf5 ? 4 : 0;
}

size_t bf_utf8_valid_bytes(struct bf_bytes text)
{
    const uint8_t *bytes = (const uint8_t *)text.at;
    size_t at = 0;
    while (at < text.len) {
        uint64_t eight;
        if (text.len - at >= sizeof(eight)) {
            memcpy(&eight, bytes + at, sizeof(eight));
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                at += sizeof(eight);
                continue;
            }
        }
        if (bytes[at] < 0x80) {
            at++;
            continue;
        }
        uint8_t low;
        uint8_t high;
        unsigned count = sequence(bytes[at], &low, &high);
        if (count == 0 || text.len - at < count || bytes[at + 1] < low || bytes[at + 1] > high)
            return at;
        for (unsigned i = 2; i < count; i++) {
            if ((bytes[at + i] & 0xc0) != 0x80)
                return at;
        }
        at += count;
    }
    return at;
}
