/* See push_egress.h. */
#include "channels/push/push_egress.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* ---- addresses ---- */

/* Networks that are not the public internet (IANA's registry of special addresses), in host order.
 */
static bool is_public_v4(uint32_t a)
{
    static const struct {
        uint32_t net, mask;
    } special[] = {
        {0x00000000, 0xff000000}, /* this host */
        {0x0a000000, 0xff000000}, /* private (RFC 1918), as the two below */
        {0x64400000, 0xffc00000}, /* carriers' own (RFC 6598) */
        {0x7f000000, 0xff000000}, /* loopback */
        {0xa83f8110, 0xffffffff}, /* 168.63.129.16: a cloud's metadata service */
        {0xa9fe0000, 0xffff0000}, /* link-local; 169.254.169.254 is metadata nearly everywhere */
        {0xac100000, 0xfff00000}, {0xc0000000, 0xffffff00}, /* protocol assignments */
        {0xc0586300, 0xffffff00},                           /* 6to4 relays */
        {0xc0a80000, 0xffff0000}, {0xc6120000, 0xfffe0000}, /* benchmarks */
        {0xe0000000, 0xe0000000},                           /* multicast, reserved, broadcast */
    };
    for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
        if ((a & special[i].mask) == special[i].net)
            return false;
    return true;
}

static uint32_t v4_at(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static bool begins_with(const uint8_t *address, const uint8_t *prefix, size_t len)
{
    return memcmp(address, prefix, len) == 0;
}

static bool is_public_v6(const uint8_t *b)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff}; /* ::ffff:a.b.c.d */
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};    /* 64:ff9b::a.b.c.d */
    static const uint8_t six_to_four[2] = {0x20, 0x02};           /* 2002:aabb:ccdd:: */
    static const uint8_t documents[4] = {0x20, 0x01, 0x0d, 0xb8};
    if (begins_with(b, mapped, sizeof(mapped)) || begins_with(b, nat64, sizeof(nat64)))
        return is_public_v4(v4_at(b + 12));
    if (begins_with(b, six_to_four, sizeof(six_to_four)))
        return is_public_v4(v4_at(b + 2));
    /* 2001::/23: Teredo, which carries any IPv4 address, and others that are no host of a service
     */
    bool is_assignment = b[0] == 0x20 && b[1] == 0x01 && b[2] < 0x02;
    /* 2000::/3: global unicast, all that is assigned; loopback, link-local, unique local and
     * multicast lie outside */
    return (b[0] & 0xe0) == 0x20 && !is_assignment && !begins_with(b, documents, sizeof(documents));
}

bool bf_egress_is_public(int family, const void *address)
{
    return family == AF_INET ? is_public_v4(v4_at(address)) : is_public_v6(address);
}

/* ---- the list ---- */

/* The next entry of a list with commas and blanks between; false: that was all. */
static bool next_entry(const char **at, struct bf_bytes *ret)
{
    *at += strspn(*at, ", \t");
    ret->at = *at;
    ret->len = strcspn(*at, ", \t");
    *at += ret->len;
    return ret->len > 0;
}

/* An entry as a host and the bits of a network, all of an address if it names none. */
static bool read_entry(struct bf_bytes entry, struct bf_host *host, unsigned *ret_bits)
{
    char digits[4] = "";
    const char *slash = memchr(entry.at, '/', entry.len);
    struct bf_bytes text = {entry.at, slash ? (size_t)(slash - entry.at) : entry.len};
    char bracketed[BF_HOST_TEXT_MAX];
    if (memchr(text.at, ':', text.len) && text.at[0] != '[' && text.len + 2 < sizeof(bracketed)) {
        bracketed[0] = '['; /* IPv6 as people write it in a list */
        memcpy(bracketed + 1, text.at, text.len);
        bracketed[text.len + 1] = ']';
        text = (struct bf_bytes){bracketed, text.len + 2};
    }
    enum bf_host_kind kind = bf_host_read(text, host);
    unsigned most = kind == BF_HOST_V4 ? 32 : kind == BF_HOST_V6 ? 128 : 0;
    *ret_bits = most;
    if (kind == BF_HOST_BAD || !slash)
        return kind != BF_HOST_BAD;
    size_t len = entry.len - (size_t)(slash + 1 - entry.at);
    if (len == 0 || len >= sizeof(digits) || most == 0)
        return false;
    memcpy(digits, slash + 1, len);
    *ret_bits = (unsigned)strtoul(digits, NULL, 10);
    return strspn(digits, "0123456789") == len && *ret_bits <= most;
}

static bool is_in_network(const uint8_t *address, const uint8_t *net, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(address, net, whole) != 0)
        return false;
    return rest == 0 || ((address[whole] ^ net[whole]) >> (8 - rest)) == 0;
}

bool bf_egress_is_listed(const char *allow, const struct bf_host *host)
{
    struct bf_bytes entry;
    while (next_entry(&allow, &entry)) {
        struct bf_host listed;
        unsigned bits;
        if (!read_entry(entry, &listed, &bits) || listed.kind != host->kind)
            continue;
        if (host->kind == BF_HOST_NAME ? strcmp(listed.text, host->text) == 0
                                       : is_in_network(host->address, listed.address, bits))
            return true;
    }
    return false;
}

bool bf_egress_check(const char *allow, struct bf_bytes *ret_bad)
{
    struct bf_host host;
    unsigned bits;
    while (next_entry(&allow, ret_bad))
        if (!read_entry(*ret_bad, &host, &bits))
            return false;
    return true;
}

/* ---- judgements ---- */

/* Names that mean this machine, this network, or nothing that a browser's push service would have:
 * RFC 6761, RFC 6762, RFC 8375, the clouds' own, and names of one label. */
static bool is_private_name(const char *name)
{
    static const char *const suffixes[] = {"localhost", "local",    "internal",    "home.arpa",
                                           "lan",       "intranet", "localdomain", "corp",
                                           "home",      "private"};
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        size_t n = strlen(suffixes[i]);
        if (len >= n && strcmp(name + len - n, suffixes[i]) == 0 &&
            (len == n || name[len - n - 1] == '.'))
            return true;
    }
    return strchr(name, '.') == NULL;
}

bool bf_egress_host(const char *allow, const struct bf_host *host)
{
    bool is_public = host->kind == BF_HOST_NAME ? !is_private_name(host->text)
                     : host->kind == BF_HOST_V4 ? bf_egress_is_public(AF_INET, host->address)
                     : host->kind == BF_HOST_V6 ? bf_egress_is_public(AF_INET6, host->address)
                                                : false;
    return is_public || bf_egress_is_listed(allow, host);
}

bool bf_egress_address(const char *allow, const char *name, int family, const void *address)
{
    struct bf_host host;
    if (bf_egress_is_public(family, address))
        return true;
    (void)bf_host_read((struct bf_bytes){name, strlen(name)}, &host);
    if (bf_egress_is_listed(allow, &host))
        return true;
    host = (struct bf_host){.kind = family == AF_INET ? BF_HOST_V4 : BF_HOST_V6};
    memcpy(host.address, address, family == AF_INET ? 4 : 16);
    return bf_egress_is_listed(allow, &host);
}
