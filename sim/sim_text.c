/* Small text helpers: see sim_text.h. */
#include "sim_text.h"

#include <stdio.h>
#include <strings.h>

bool sim_text_number(struct sim_slice s, uint64_t max, uint64_t *ret_value)
{
    uint64_t v = 0;
    if (s.n == 0)
        return false;
    for (uint32_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned)(unsigned char)s.p[i] - '0';
        if (digit > 9 || v > (max - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *ret_value = v;
    return true;
}

bool sim_text_is_hex(struct sim_slice s)
{
    for (uint32_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i], lower = c | 0x20;
        if ((c < '0' || c > '9') && (lower < 'a' || lower > 'f'))
            return false;
    }
    return s.n > 0;
}

static int base64_value(unsigned char c, bool standard)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == (standard ? '+' : '-'))
        return 62;
    return c == (standard ? '/' : '_') ? 63 : -1;
}

bool sim_text_is_base64url(struct sim_slice s)
{
    for (uint32_t i = 0; i < s.n; i++)
        if (base64_value((unsigned char)s.p[i], false) < 0)
            return false;
    return s.n > 0;
}

bool sim_text_is_uuid(struct sim_slice s)
{
    if (s.n != 36)
        return false;
    for (uint32_t i = 0; i < 36; i++) {
        char c = s.p[i];
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
    }
    return true;
}

bool sim_text_is_nocase(struct sim_slice s, const char *text)
{
    return s.n == strlen(text) && strncasecmp(s.p, text, s.n) == 0;
}

bool sim_text_has_word(struct sim_slice list, const char *word)
{
    for (uint32_t i = 0; i < list.n;) {
        uint32_t from = i;
        while (i < list.n && list.p[i] != ',' && list.p[i] != ' ' && list.p[i] != ';')
            i++;
        if (sim_text_is_nocase((struct sim_slice){list.p + from, i - from}, word))
            return true;
        i++;
    }
    return false;
}

int sim_text_base64(struct sim_slice s, bool standard, uint8_t *out, size_t size)
{
    if (standard) {
        if (s.n % 4 != 0)
            return -1;
        for (int i = 0; i < 2 && s.n > 0 && s.p[s.n - 1] == '='; i++)
            s.n--;
    }
    if (s.n % 4 == 1 || (size_t)s.n * 3 / 4 > size)
        return -1;
    uint32_t word = 0;
    size_t made = 0;
    for (uint32_t i = 0; i < s.n; i++) {
        int v = base64_value((unsigned char)s.p[i], standard);
        if (v < 0)
            return -1;
        word = word << 6 | (uint32_t)v;
        if (i % 4 != 0)
            out[made++] = (uint8_t)(word >> (2 * (3 - i % 4)));
    }
    return (int)made;
}

size_t sim_text_base64url(const uint8_t *p, size_t n, char *out)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    size_t made = 0;
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t word = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                        (left > 2 ? p[i + 2] : 0u);
        for (unsigned k = 0; k < (left > 2 ? 4 : left + 1); k++)
            out[made++] = alphabet[word >> (18 - 6 * k) & 63];
    }
    out[made] = '\0';
    return made;
}

void sim_text_uuid(uint64_t hi, uint64_t lo, char out[37])
{
    static const char hex[] = "0123456789abcdef";
    hi = (hi & ~0xf000ull) | 0x4000;
    lo = (lo & ~(3ull << 62)) | 2ull << 62;
    unsigned at = 0;
    for (unsigned i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            out[at++] = '-';
        uint64_t word = i < 16 ? hi : lo;
        out[at++] = hex[word >> (60 - 4 * (i % 16)) & 15];
    }
    out[at] = '\0';
}

bool sim_text_copy(char *out, size_t size, struct sim_slice s)
{
    size_t n = s.n < size ? s.n : size - 1;
    memcpy(out, s.p, n);
    out[n] = '\0';
    return n == s.n;
}
