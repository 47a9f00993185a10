/* The admin port's token, Host and Origin; see credential.h. */
#include "admin/credential.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/crypto.h"
#include "belfry/base/err.h"
#include "belfry/shm/own.h"
#include "belfry/base/log.h"
#include "belfry/conf/conf.h"

#define TOKEN_PREFIX       "bfa_"
#define TOKEN_RANDOM_BYTES 24u
/* A Host is a DNS name (253 bytes) or an address in brackets. */
#define HOST_BYTES_MAX 256u

/* ---- the file -----------------------------------------------------------------------------------
 */

void bf_admin_token_path(const struct bf_conf *conf, char *out, size_t cap)
{
    const char *given = conf->admin_token_file;
    snprintf(out, cap, "%s%s", given[0] ? given : conf->state_dir, given[0] ? "" : "/admin.token");
}

static bool is_token(const char *text, size_t len)
{
    return len == BF_ADMIN_TOKEN_BYTES - 1 &&
           memcmp(text, TOKEN_PREFIX, sizeof(TOKEN_PREFIX) - 1) == 0 &&
           strspn(text + sizeof(TOKEN_PREFIX) - 1, "0123456789abcdef") == 2 * TOKEN_RANDOM_BYTES;
}

int bf_admin_token_read(const char *path, char token[BF_ADMIN_TOKEN_BYTES], bool *ret_is_private)
{
    char text[BF_ADMIN_TOKEN_BYTES + 2] = "";
    struct stat st;
    /* NONBLOCK: a FIFO in its place must not hold the start up */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    ssize_t n = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read(fd, text, sizeof(text) - 1) : -1;
    close(fd);
    size_t len = n > 0 ? (size_t)n : 0;
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        text[--len] = '\0';
    if (n < 0 || !is_token(text, len))
        return BF_ERR_MALFORMED;
    memcpy(token, text, BF_ADMIN_TOKEN_BYTES);
    explicit_bzero(text, sizeof(text));
    *ret_is_private = (st.st_mode & (S_IRWXG | S_IRWXO)) == 0;
    return 0;
}

static void make_token(char token[BF_ADMIN_TOKEN_BYTES])
{
    uint8_t secret[TOKEN_RANDOM_BYTES];
    bf_random(secret, sizeof(secret));
    int len = snprintf(token, BF_ADMIN_TOKEN_BYTES, "%s", TOKEN_PREFIX);
    for (size_t i = 0; i < sizeof(secret); i++)
        snprintf(token + len + 2 * i, 3, "%02x", secret[i]);
    explicit_bzero(secret, sizeof(secret));
}

/* Whole or not at all: under another name first. */
static int write_token(const char *path, const char *token)
{
    char fresh[BF_PATH_BYTES_MAX];
    if (snprintf(fresh, sizeof(fresh), "%s.new", path) >= (int)sizeof(fresh))
        return -ENAMETOOLONG;
    (void)unlink(fresh); /* of a start that ended in between */
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int rc = dprintf(fd, "%s\n", token) == (int)BF_ADMIN_TOKEN_BYTES && fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    if (rc == 0 && rename(fresh, path) != 0)
        rc = -errno;
    if (rc != 0)
        (void)unlink(fresh);
    return rc;
}

int bf_admin_token_open(const char *path, char token[BF_ADMIN_TOKEN_BYTES], char *err,
                        size_t err_len)
{
    bool is_private = false;
    int rc = bf_admin_token_read(path, token, &is_private);
    if (rc == 0 && is_private)
        return 0;
    if (rc == 0)
        BF_WARN("ctrlplane",
                "%s could be read by other users of this machine: a new admin token "
                "takes its place",
                path);
    else if (rc != -ENOENT)
        BF_WARN("ctrlplane", "%s holds no admin token (%s): a new one takes its place", path,
                bf_err_text(rc));
    make_token(token);
    rc = write_token(path, token);
    if (rc != 0)
        snprintf(err, err_len,
                 "the admin token cannot be written to %s: %s. Make its directory "
                 "writable for this user, or set admin.token_file",
                 path, bf_err_text(rc));
    return rc;
}

/* ---- Host and Origin
 * ------------------------------------------------------------------------------ */

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
