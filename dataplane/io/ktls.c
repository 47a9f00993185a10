/* See ktls.h. */
#include "io/ktls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

int bf_ktls_probe(void)
{
    static const char name[] = "tls";
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int rc = setsockopt(fd, SOL_TCP, TCP_ULP, name, sizeof(name)) == 0 ? 0 : -errno;
    (void)close(fd);
    /* known, but it wants a connection, which this socket does not have */
    return rc == -ENOTCONN ? 0 : rc;
}
