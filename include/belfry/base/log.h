/*
 * One log line: `<RFC 3339 time> <level> <plane> <message>` on stderr, which the service manager
 * keeps. Logs are for the rare (start, stop, reload, a fault's first sight); what repeats is a
 * counter (shm/metrics.def). No personal data, no secrets (SEC-4). Any thread: a line is one
 * write().
 */
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/text.h"

enum bf_log_level {
    BF_LOG_ERROR = 0,
    BF_LOG_WARN = 1,
    BF_LOG_INFO = 2,
    BF_LOG_DEBUG = 3,
};

/* A longer line is cut; nobody reads past it. */
#define BF_LOG_LINE_BYTES_MAX 1024u

__attribute__((format(printf, 3, 0))) static inline void
bf_log_write(enum bf_log_level level, const char *plane, const char *format, va_list args)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    char line[BF_LOG_LINE_BYTES_MAX], message[BF_LOG_LINE_BYTES_MAX];
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t len = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
    int n = snprintf(line + len, sizeof(line) - len, ".%03ldZ %s %s ", now.tv_nsec / 1000000,
                     names[level], plane);
    len += n > 0 ? (size_t)n : 0;
    size_t said = bf_vformat(message, sizeof(message), format, args);
    len += bf_text_escape(line + len, sizeof(line) - len - 1, message, said);
    line[len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* nowhere left to complain */
}

__attribute__((format(printf, 3, 4))) static inline void
bf_log(enum bf_log_level level, const char *plane, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bf_log_write(level, plane, format, args);
    va_end(args);
}

#define BF_ERROR(plane, ...) bf_log(BF_LOG_ERROR, plane, __VA_ARGS__)
#define BF_WARN(plane, ...)  bf_log(BF_LOG_WARN, plane, __VA_ARGS__)
#define BF_INFO(plane, ...)  bf_log(BF_LOG_INFO, plane, __VA_ARGS__)
