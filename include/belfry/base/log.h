/*
 * One log line on stderr, which the service manager keeps: `<RFC 3339 time> <level> <plane>
 * <message>`, or the same four as one JSON object (log.format). Lines below log.level are not made.
 * Rare events are logged (start, stop, reload, the first time that something fails); what happens
 * again and again is counted instead (shm/metrics.def). No personal data, no secrets (SEC-4). Any
 * thread: a line is one write().
 */
#pragma once

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
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
    BF_LOG_LEVEL_COUNT
};

/* A longer message is cut to this. */
#define BF_LOG_LINE_BYTES_MAX 1024u
/* An escaped byte takes at most six; what does not fit is cut between two characters. */
#define BF_LOG_ESCAPED_BYTES_MAX 2048u

/* One for the whole process; weak, because the module has no .c file. Relaxed: one line more or
 * less around a reload does no harm. */
__attribute__((weak)) _Atomic int bf_log_level_now = BF_LOG_INFO;
__attribute__((weak)) _Atomic bool bf_log_is_json = false;

static inline const char *bf_log_level_name(enum bf_log_level level)
{
    static const char *const names[BF_LOG_LEVEL_COUNT] = {"error", "warn", "info", "debug"};
    return names[level];
}

/* -1: no such level. */
static inline int bf_log_level_find(const char *name)
{
    for (int i = 0; i < BF_LOG_LEVEL_COUNT; i++) {
        if (strcmp(bf_log_level_name((enum bf_log_level)i), name) == 0)
            return i;
    }
    return -1;
}

/* Applies log.level and log.format. An unknown level changes nothing. */
static inline void bf_log_configure(const char *level, const char *format)
{
    int found = bf_log_level_find(level);
    if (found >= 0)
        atomic_store_explicit(&bf_log_level_now, found, memory_order_relaxed);
    atomic_store_explicit(&bf_log_is_json, strcmp(format, "json") == 0, memory_order_relaxed);
}

/* Escapes the character |code|, which JSON or a terminal must not get as it is. Returns the length,
 * at most 13. */
static inline int bf_log_escape_code(char *out, size_t cap, uint32_t code)
{
    if (code == '"' || code == '\\')
        return snprintf(out, cap, "\\%c", (char)code);
    if (code < 0x10000)
        return snprintf(out, cap, "\\u%04x", (unsigned)code);
    code -= 0x10000; /* JSON has UTF-16 escapes: a pair of surrogates */
    return snprintf(out, cap, "\\u%04x\\u%04x", 0xd800u + (unsigned)(code >> 10),
                    0xdc00u + (unsigned)(code & 0x3ff));
}

/* |text| inside a JSON string; gives the new length of |out|, which is never above |cap|. */
static inline size_t bf_log_escape(const char *text, size_t text_len, char *out, size_t len,
                                   size_t cap)
{
    for (size_t i = 0; i < text_len;) {
        char escape[16];
        uint32_t code = 0xfffd; /* of what is no UTF-8 */
        size_t bytes = bf_utf8_char(text + i, text_len - i, &code);
        bool is_escaped = bytes == 0 || code == '"' || code == '\\' || bf_text_is_hidden(code);
        int n = is_escaped ? bf_log_escape_code(escape, sizeof(escape), code) : (int)bytes;
        if (len + (size_t)n > cap)
            break;
        memcpy(out + len, is_escaped ? escape : text + i, (size_t)n);
        len += (size_t)n;
        i += bytes > 0 ? bytes : 1;
    }
    return len;
}

static inline void bf_log_emit(enum bf_log_level level, const char *plane, const char *text,
                               size_t text_len)
{
    char line[BF_LOG_ESCAPED_BYTES_MAX];
    char when[32];
    struct timespec now;
    struct tm tm;
    bool is_json = atomic_load_explicit(&bf_log_is_json, memory_order_relaxed);
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t at = strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(when + at, sizeof(when) - at, ".%03ldZ", now.tv_nsec / 1000000);
    const char *format =
        is_json ? "{\"time\":\"%s\",\"level\":\"%s\",\"plane\":\"%s\",\"message\":\"" : "%s %s %s ";
    int n = snprintf(line, sizeof(line), format, when, bf_log_level_name(level), plane);
    size_t len = n > 0 ? (size_t)n : 0;
    if (is_json) { /* room for the end */
        len = bf_log_escape(text, text_len, line, len, sizeof(line) - 3);
        memcpy(line + len, "\"}", 2);
        len += 2;
    } else {
        len += bf_text_escape(line + len, sizeof(line) - len - 1, text, text_len);
    }
    line[len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* nowhere left to complain */
}

__attribute__((format(printf, 3, 0))) static inline void
bf_log_write(enum bf_log_level level, const char *plane, const char *format, va_list args)
{
    char text[BF_LOG_LINE_BYTES_MAX];
    if ((int)level > atomic_load_explicit(&bf_log_level_now, memory_order_relaxed))
        return;
    bf_log_emit(level, plane, text, bf_vformat(text, sizeof(text), format, args));
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
#define BF_DEBUG(plane, ...) bf_log(BF_LOG_DEBUG, plane, __VA_ARGS__)
