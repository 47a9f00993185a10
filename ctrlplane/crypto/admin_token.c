/* The file of the admin token; see admin_token.h. */
#include "crypto/admin_token.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/conf/conf.h"
#include "belfry/shm/own.h"
#include "crypto/hash.h"

#define TOKEN_PREFIX       "bfa_"
#define TOKEN_RANDOM_BYTES 24u

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
