/*
 * A FILE whose lines become lines of our log, for libraries that only know streams (DPDK's EAL):
 * with our time, level and format in front instead of their own. One process, one stream.
 */
#pragma once

#include <stdio.h>
#include <string.h>

#include "belfry/base/log.h"

struct bf_log_stream {
    const char *plane;
    enum bf_log_level (*level)(void); /* of the message that is being written */
};

static inline ssize_t bf_log_stream_write(void *cookie, const char *text, size_t len)
{
    const struct bf_log_stream *stream = cookie;
    enum bf_log_level level = stream->level();
    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t line = end ? (size_t)(end - text) - at : len - at;
        if (line > 0)
            bf_log(level, stream->plane, "%.*s", (int)line, text + at);
        at += line + 1;
    }
    return (ssize_t)len;
}

/* |stream| lives as long as the FILE. NULL when there is no memory: the library then keeps its own.
 */
static inline FILE *bf_log_stream_open(struct bf_log_stream *stream)
{
    FILE *file = fopencookie(stream, "w", (cookie_io_functions_t){.write = bf_log_stream_write});
    if (file) /* a message is a write, however it ends */
        setvbuf(file, NULL, _IOLBF, BF_LOG_LINE_BYTES_MAX);
    return file;
}
