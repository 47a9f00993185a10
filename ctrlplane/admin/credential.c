/* The admin port's Host and Origin; see credential.h. */
#include "admin/credential.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "belfry/conf/conf.h"

/* A Host is a DNS name (253 bytes) or an address in brackets. */
#define HOST_BYTES_MAX 256u

/* The Host without its port, lower case left as it is, brackets taken off; "" when it is none. */
static void split_host(struct bf_bytes host, char out[HOST_BYTES_MAX])
{
    const char *end = host.at ? memchr(host.at, ':', host.len) : NULL;
    size_t len = end ? (size_t)(end - host.at) : host.len;
    const char *from = host.at;
    out[0] = '\0';
    if (host.len > 0 && host.at[0] == '[') {
        end = memchr(host.at, ']', host.len);
        from = host.at + 1;
        len = end ? (size_t)(end - from) : 0;
    }
    if (from && len < HOST_BYTES_MAX) {
        memcpy(out, from, len);
        out[len] = '\0';
    }
}

static bool is_listed(const char *list, const char *name)
{
    size_t wanted = strlen(name);
    while (*list != '\0') {
        size_t lead = strspn(list, " ,");
        list += lead;
        size_t len = strcspn(list, " ,");
        if (len > 0 && len == wanted && strncasecmp(list, name, len) == 0)
            return true;
        list += len;
    }
    return false;
}

static bool is_address(const char *name)
{
    uint8_t bytes[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

bool bf_admin_host_is_ours(const struct bf_conf *conf, struct bf_bytes host)
{
    char name[HOST_BYTES_MAX];
    bool is_wild = strcmp(conf->admin_host, "0.0.0.0") == 0 || strcmp(conf->admin_host, "::") == 0;
    split_host(host, name);
    return strcasecmp(name, "localhost") == 0 || strcmp(name, "127.0.0.1") == 0 ||
           strcmp(name, "::1") == 0 || strcasecmp(name, conf->admin_host) == 0 ||
           is_listed(conf->admin_names, name) || (is_wild && is_address(name));
}

bool bf_admin_origin_is_same(struct bf_bytes origin, struct bf_bytes host)
{
    size_t scheme = 0;
    if (origin.len > 7 && strncasecmp(origin.at, "http://", 7) == 0)
        scheme = 7;
    else if (origin.len > 8 && strncasecmp(origin.at, "https://", 8) == 0)
        scheme = 8;
    return scheme > 0 && host.at && origin.len - scheme == host.len &&
           strncasecmp(origin.at + scheme, host.at, host.len) == 0;
}
