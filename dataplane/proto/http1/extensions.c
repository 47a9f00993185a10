/* See extensions.h. */
#include "proto/http1/extensions.h"

#include <stdio.h>
#include <string.h>

#include "belfry/http1/text.h"

/* What is left of the value. */
struct scan {
    const char *at;
    const char *end;
};

struct param {
    struct bf_bytes name;
    struct bf_bytes value;
    bool has_value;
};

/* An offer while its parameters are read. */
struct draft {
    struct bf_deflate_offer offer;
    uint32_t seen;
    bool is_known; /* permessage-deflate, and nothing in it that we cannot meet */
};

enum known { P_SERVER_TAKEOVER = 0, P_CLIENT_TAKEOVER, P_SERVER_BITS, P_CLIENT_BITS, P_COUNT };

static const struct bf_bytes param_names[P_COUNT] = {
    [P_SERVER_TAKEOVER] = {"server_no_context_takeover", 26},
    [P_CLIENT_TAKEOVER] = {"client_no_context_takeover", 26},
    [P_SERVER_BITS] = {"server_max_window_bits", 22},
    [P_CLIENT_BITS] = {"client_max_window_bits", 22},
};

static void skip_space(struct scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t'))
        s->at++;
}

static bool take_char(struct scan *s, char c)
{
    skip_space(s);
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static bool take_token(struct scan *s, struct bf_bytes *ret)
{
    skip_space(s);
    const char *start = s->at;
    while (s->at < s->end && bf_http1_is_tchar(*s->at))
        s->at++;
    *ret = (struct bf_bytes){.at = start, .len = (size_t)(s->at - start)};
    return ret->len > 0;
}

/* token, or a quoted token: "the value after unescaping MUST conform to token" (RFC 6455 9.1). An
 * escape never needs to be in one, so none is taken. */
static bool take_value(struct scan *s, struct bf_bytes *ret)
{
    if (!take_char(s, '"'))
        return take_token(s, ret);
    const char *start = s->at;
    while (s->at < s->end && bf_http1_is_tchar(*s->at))
        s->at++;
    *ret = (struct bf_bytes){.at = start, .len = (size_t)(s->at - start)};
    if (ret->len == 0 || s->at == s->end || *s->at != '"')
        return false;
    s->at++;
    return true;
}

/* 8 to 15 without leading zeros (RFC 7692 7.1.2.1); 0 if it is anything else. */
static uint8_t window_bits(struct bf_bytes v)
{
    if (v.len == 1 && (v.at[0] == '8' || v.at[0] == '9'))
        return (uint8_t)(v.at[0] - '0');
    if (v.len == 2 && v.at[0] == '1' && v.at[1] >= '0' && v.at[1] <= '5')
        return (uint8_t)(10 + v.at[1] - '0');
    return 0;
}

/* Whether the parameter is one that we can meet; notes it. */
static bool meet(struct draft *d, const struct param *p)
{
    unsigned which = 0;
    while (which < P_COUNT && !bf_bytes_is_equal(p->name, param_names[which]))
        which++;
    if (which == P_COUNT || (d->seen & 1u << which))
        return false;
    d->seen |= 1u << which;
    uint8_t bits = p->has_value ? window_bits(p->value) : 0;
    switch (which) {
    case P_SERVER_BITS:
        d->offer.limits_server = true;
        d->offer.server_bits = bits;
        return bits != 0;
    case P_CLIENT_BITS:
        d->offer.client_bits = p->has_value ? bits : BF_WINDOW_BITS_MAX;
        return d->offer.client_bits != 0;
    default:
        return !p->has_value; /* we never take a context over: granted */
    }
}

/* One extension with its parameters. False: not the grammar. */
static bool take_extension(struct scan *s, struct draft *d)
{
    struct bf_bytes name;
    if (!take_token(s, &name))
        return false;
    *d = (struct draft){.offer = {.is_offered = true, .server_bits = BF_WINDOW_BITS_MAX}};
    d->is_known = bf_bytes_is_equal(name, BF_BYTES("permessage-deflate"));
    while (take_char(s, ';')) {
        struct param p = {0};
        if (!take_token(s, &p.name))
            return false;
        p.has_value = take_char(s, '=');
        if (p.has_value && !take_value(s, &p.value))
            return false;
        d->is_known = meet(d, &p) && d->is_known;
    }
    return true;
}

int bf_extensions_take(struct bf_bytes value, struct bf_deflate_offer *offer)
{
    struct scan s = {.at = value.at, .end = value.at + value.len};
    bool any = false;
    for (;;) {
        struct draft d;
        while (take_char(&s, ',')) /* RFC 9110 5.6.1: empty elements are taken */
            continue;
        skip_space(&s);
        if (s.at == s.end)
            return any ? 0 : -400;
        if (!take_extension(&s, &d))
            return -400;
        any = true;
        if (d.is_known && !offer->is_offered)
            *offer = d.offer;
        skip_space(&s);
        if (s.at < s.end && *s.at != ',')
            return -400;
    }
}

size_t bf_extensions_write(const struct bf_deflate_offer *offer, char out[BF_EXTENSIONS_BYTES_MAX])
{
    char server[32] = "", client[32] = "";
    if (offer->limits_server)
        snprintf(server, sizeof(server), "; server_max_window_bits=%u", offer->server_bits);
    if (offer->client_bits != 0 && offer->client_bits < BF_WINDOW_BITS_MAX)
        snprintf(client, sizeof(client), "; client_max_window_bits=%u", offer->client_bits);
    int n = snprintf(out, BF_EXTENSIONS_BYTES_MAX,
                     "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
                     "client_no_context_takeover%s%s\r\n",
                     server, client);
    return n > 0 && n < (int)BF_EXTENSIONS_BYTES_MAX ? (size_t)n : 0;
}
