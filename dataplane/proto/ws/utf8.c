/* UTF-8 check: see utf8.h. Client frames are JSON and mostly ASCII, so runs of ASCII go 8 at a
 * time. */
#include "proto/ws/utf8.h"

#include <stdint.h>
#include <string.h>

#define ASCII_MASK UINT64_C(0x8080808080808080)

/* Bytes of the well-formed sequence at |p| that begins with a byte above 0x7f; 0 if there is none.
 */
static size_t sequence_bytes(const uint8_t *p, size_t left)
{
    uint8_t lead = p[0];
    size_t n = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (n == 0 || n > left)
        return 0;
    /* the second byte carries the exclusions: overlong (e0, f0), surrogates (ed), top (f4) */
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

bool bf_utf8_is_valid(const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t i = 0;
    while (i < len) {
        uint64_t word;
        if (len - i >= sizeof(word)) {
            memcpy(&word, p + i, sizeof(word));
            if ((word & ASCII_MASK) == 0) {
                i += sizeof(word);
                continue;
            }
        }
        size_t n = p[i] < 0x80 ? 1 : sequence_bytes(p + i, len - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}
