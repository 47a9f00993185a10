/*
 * Ports that are ours alone. The dataplane's workers share a port by SO_REUSEPORT, which lets any
 * other process of the same user join in silently: two nodes would share their clients. So the port
 * is probed without that option before the workers listen (the kernel refuses it while anybody
 * listens there), and a lock keeps two starts from probing at once. And sentences for a port that
 * cannot be had: what happened, who holds it, what to do. Start only; any thread.
 */
#pragma once

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/text.h"

/* How long we wait for another start on the same port: by then it listens, has failed, or hangs. */
#define BF_PORT_LOCK_MS 5000u
/* The kernel closes the sockets of a killed dataplane a moment after its death, when it takes down
 * its io_urings. So a port that no living process is known to hold is waited for this long. */
#define BF_PORT_LINGER_MS 3000u
#define BF_PORT_POLL_MS   20u
/* As much of a command line as helps to recognise a process. */
#define BF_PORT_HOLDER_BYTES 160u

static inline void bf_port_pause(void)
{
    nanosleep(&(struct timespec){.tv_nsec = BF_PORT_POLL_MS * 1000000L}, NULL);
}

/* IPv4 or IPv6 by the look of |host|; 0 when it is neither. */
static inline socklen_t bf_port_address(const char *host, uint16_t port,
                                        struct sockaddr_storage *ret)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)ret;
    memset(ret, 0, sizeof(*ret));
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return sizeof(*v4);
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        return sizeof(*v6);
    }
    return 0;
}

/* ---- who holds it ---- */

static inline bool bf_port_is_any(const uint32_t at[4], unsigned words)
{
    return (at[0] | (words > 1 ? at[1] | at[2] | at[3] : 0)) == 0;
}

/* Whether a listener on |at| (1 or 4 words, as /proc/net writes them) keeps us from listening on
 * |host|. */
static inline bool bf_port_overlaps(const char *host, const uint32_t at[4], unsigned words)
{
    uint32_t ours[4] = {0};
    bool is_v4 = inet_pton(AF_INET, host, ours) == 1;
    if (!is_v4 && inet_pton(AF_INET6, host, ours) != 1)
        return false;
    unsigned our_words = is_v4 ? 1 : 4;
    if (our_words == words)
        return bf_port_is_any(at, words) || bf_port_is_any(ours, words) ||
               memcmp(at, ours, sizeof(uint32_t) * words) == 0;
    /* a wildcard of IPv6 takes IPv4 too */
    return words == 4 ? bf_port_is_any(at, 4) : bf_port_is_any(ours, 4);
}

/* Inode of a socket that listens on |port| and keeps us from |host|, from one table of /proc/net;
 * 0: none. */
static inline uint64_t bf_port_inode(const char *table, const char *host, uint16_t port)
{
    char line[512];
    uint64_t found = 0;
    FILE *file = fopen(table, "re");
    while (file && found == 0 && fgets(line, sizeof(line), file)) {
        char address[40];
        unsigned at_port, state;
        unsigned long long inode;
        uint32_t at[4] = {0};
        if (sscanf(line, " %*d: %39[0-9A-F]:%x %*s %x %*s %*s %*s %*u %*d %llu", address, &at_port,
                   &state, &inode) != 4 ||
            state != 0x0A || at_port != port)
            continue;
        unsigned words = strlen(address) == 8 ? 1 : 4;
        for (unsigned i = 0; i < words && strlen(address) == 8 * words; i++) {
            char word[9] = "";
            memcpy(word, address + 8 * i, 8);
            at[i] = (uint32_t)strtoul(word, NULL, 16);
        }
        if (bf_port_overlaps(host, at, words))
            found = inode;
    }
    if (file)
        fclose(file);
    return found;
}

static inline bool bf_port_pid_has(const char *pid, const char *link)
{
    char path[300], target[64];
    bool has = false;
    snprintf(path, sizeof(path), "/proc/%.*s/fd", BF_CUT(pid, 20));
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && !has && (e = readdir(dir));) {
        snprintf(path, sizeof(path), "/proc/%.*s/fd/%.*s", BF_CUT(pid, 20), BF_CUT(e->d_name, 40));
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = '\0';
        has = n > 0 && strcmp(target, link) == 0;
    }
    if (dir)
        closedir(dir);
    return has;
}

/* "pid 123 (its command line)"; false, and "" in |out|, when nobody is known to hold it: a process
 * of another user, or one that is dying. */
static inline bool bf_port_holder(const char *host, uint16_t port, char out[BF_PORT_HOLDER_BYTES])
{
    char link[64], path[64], command[BF_PORT_HOLDER_BYTES - 32] = "";
    out[0] = '\0';
    uint64_t inode = bf_port_inode("/proc/net/tcp", host, port);
    if (inode == 0)
        inode = bf_port_inode("/proc/net/tcp6", host, port);
    if (inode == 0)
        return false;
    snprintf(link, sizeof(link), "socket:[%llu]", (unsigned long long)inode);
    DIR *proc = opendir("/proc");
    for (struct dirent *e; proc && out[0] == '\0' && (e = readdir(proc));) {
        if (!isdigit((unsigned char)e->d_name[0]) || !bf_port_pid_has(e->d_name, link))
            continue;
        snprintf(path, sizeof(path), "/proc/%.*s/cmdline", BF_CUT(e->d_name, 20));
        FILE *file = fopen(path, "re");
        size_t len = file ? fread(command, 1, sizeof(command) - 1, file) : 0;
        if (file)
            fclose(file);
        for (size_t i = 0; i < len; i++) /* arguments end with zeros; a name may hold anything */
            command[i] = (char)(command[i] < 0x20 || command[i] == 0x7f ? ' ' : command[i]);
        while (len > 0 && command[len - 1] == ' ')
            command[--len] = '\0';
        snprintf(out, BF_PORT_HOLDER_BYTES, "pid %.*s (%s)", BF_CUT(e->d_name, 10), command);
    }
    if (proc)
        closedir(proc);
    return out[0] != '\0';
}

/* One sentence about |rc| (-errno) of a bind or listen; |option| names what to change. */
static inline void bf_port_explain(int rc, const char *host, uint16_t port, const char *option,
                                   char *out, size_t cap)
{
    char holder[BF_PORT_HOLDER_BYTES];
    if (rc == -EADDRINUSE && bf_port_holder(host, port, holder))
        snprintf(out, cap,
                 "cannot listen on %s port %u: %s listens there. Stop that process, or set "
                 "%s to a free port",
                 host, port, holder, option);
    else if (rc == -EADDRINUSE)
        snprintf(out, cap,
                 "cannot listen on %s port %u: another process listens there (ss -ltnp shows "
                 "which, as root). Stop it, or set %s to a free port",
                 host, port, option);
    else if (rc == -EACCES || rc == -EPERM)
        snprintf(out, cap,
                 "cannot listen on %s port %u: this user may not use ports below 1024. Set "
                 "%s to a higher port, or give the program CAP_NET_BIND_SERVICE",
                 host, port, option);
    else if (rc == -EADDRNOTAVAIL)
        snprintf(out, cap,
                 "cannot listen on %s port %u: this machine does not have that address. Set "
                 "the .host beside %s to one that `ip address` shows, or to 0.0.0.0",
                 host, port, option);
    else
        snprintf(out, cap, "cannot listen on %s port %u (%s): %s", host, port, option,
                 strerror(-rc));
}

/* ---- a claim ---- */

/* One start at a time on |port|: a name in the abstract namespace, which is that of the network
 * (two containers may use the same port) and ends with the process. A descriptor to close, or
 * -errno. */
static inline int bf_port_lock(uint16_t port)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int len = snprintf(at.sun_path + 1, sizeof(at.sun_path) - 1, "belfry-listen-%u", port);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    for (unsigned ms = 0; bind(fd, (struct sockaddr *)&at, size) != 0; ms += BF_PORT_POLL_MS) {
        if (errno != EADDRINUSE || ms >= BF_PORT_LOCK_MS) {
            int rc = errno == EADDRINUSE ? -EBUSY : -errno;
            close(fd);
            return rc;
        }
        bf_port_pause();
    }
    return fd;
}

/* Whether the port can be had by us alone: 0 or -errno. */
static inline int bf_port_probe(const char *host, uint16_t port)
{
    struct sockaddr_storage at;
    socklen_t len = bf_port_address(host, port, &at);
    const int on = 1;
    int fd = len > 0 ? socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0)
        return len > 0 ? -errno : -EINVAL;
    /* REUSEADDR: connections of the process before us that still end are not in the way */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    int rc = bind(fd, (struct sockaddr *)&at, len) == 0 ? 0 : -errno;
    close(fd);
    return rc;
}

/*
 * Claims |port| for the sockets that the caller opens next with SO_REUSEPORT; it closes the
 * descriptor that comes back once they listen. -EADDRINUSE: somebody listens there. -EBUSY: another
 * start on this port does not come to its end. Port 0 needs no claim.
 */
static inline int bf_port_claim(const char *host, uint16_t port)
{
    char holder[BF_PORT_HOLDER_BYTES];
    int fd = bf_port_lock(port);
    if (fd < 0)
        return fd;
    int rc = bf_port_probe(host, port);
    for (unsigned ms = 0; rc == -EADDRINUSE && ms < BF_PORT_LINGER_MS; ms += BF_PORT_POLL_MS) {
        if (bf_port_holder(host, port, holder))
            break;
        bf_port_pause();
        rc = bf_port_probe(host, port);
    }
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}
