/* Which certificate a name belongs to (RFC 6066 section 3; wildcards as RFC 6125 section 6.4.3). */
#include <string.h>

#include "tls/tls_impl.h"

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

bool bf_tls_names_add(struct bf_tls_server *server, uint32_t context, const char *text, size_t len)
{
    bool is_wild = len > 2 && text[0] == '*' && text[1] == '.';
    if (server->name_count == BF_TLS_NAMES_MAX || len == 0 ||
        len >= sizeof(server->names[0].text) || text[0] == '.')
        return false;
    char *to = server->names[server->name_count].text;
    for (size_t i = 0; i < len; i++) {
        to[i] = lower(text[i]);
        if (!is_name_char(to[i]) && !(is_wild && i == 0))
            return false;
    }
    server->names[server->name_count].len = (uint8_t)len;
    server->names[server->name_count].context = (uint8_t)context;
    server->name_count++;
    return true;
}

static bool is_match(const char *pattern, size_t pattern_len, const char *host, size_t host_len)
{
    if (pattern[0] == '*') {
        const char *dot = memchr(host, '.', host_len);
        if (!dot || dot == host)
            return false;
        pattern++;
        pattern_len--;
        host_len -= (size_t)(dot - host);
        host = dot;
    }
    return host_len == pattern_len && memcmp(pattern, host, host_len) == 0;
}

uint32_t bf_tls_names_find(const struct bf_tls_server *server, const char *host)
{
    char name[254];
    size_t len = strlen(host);
    if (len > 0 && host[len - 1] == '.')
        len--;
    if (len == 0 || len >= sizeof(name))
        return 0;
    for (size_t i = 0; i < len; i++)
        name[i] = lower(host[i]);
    /* exact names before wildcards, else the order of the configuration */
    for (int wild = 0; wild < 2; wild++)
        for (uint32_t i = 0; i < server->name_count; i++)
            if ((server->names[i].text[0] == '*') == (wild == 1) &&
                is_match(server->names[i].text, server->names[i].len, name, len))
                return server->names[i].context;
    return 0;
}
