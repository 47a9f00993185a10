/*
 * One log line on stderr, which the service manager keeps: `<RFC 3339 time> <level> <plane>
 * <message>`, or the same four as one JSON object (log.format). Lines below log.level are not made.
 * Logs are for the rare (start, stop, reload, a fault's first sight); what repeats is a counter
 * (shm/metrics.def). No personal data, no secrets (SEC-4). Any thread: a line is one write().
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

enum bf_log_level {
    BF_LOG_ERROR = 0,
    BF_LOG_WARN = 1,
    BF_LOG_INFO = 2,
    BF_LOG_DEBUG = 3,
    BF_LOG_LEVEL_COUNT
};

/* A longer message is cut; nobody reads past it. */
#define BF_LOG_LINE_BYTES_MAX 1024u
/* As JSON a byte takes six at worst; what does not fit is cut at a character. */
#define BF_LOG_JSON_BYTES_MAX 2048u

/* Of the process; weak, because this header is all there is of the module. Relaxed: a line more or
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

/* As log.level and log.format say; a level that there is none of changes nothing. */
static inline void bf_log_configure(const char *level, const char *format)
{
    int found = bf_log_level_find(level);
    if (found >= 0)
        atomic_store_explicit(&bf_log_level_now, found, memory_order_relaxed);
    atomic_store_explicit(&bf_log_is_json, strcmp(format, "json") == 0, memory_order_relaxed);
}

/* Bytes of the character at |at| of |len|: 1..4, or 0 when it is no UTF-8 (cut, overlong ones
 * aside). */
static inline size_t bf_log_character(const char *at, size_t len)
{
    uint8_t first = (uint8_t)at[0];
    size_t bytes = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
    if (first > 0xf4 || bytes > len)
        return 0;
    for (size_t i = 1; i < bytes; i++) {
        if (((uint8_t)at[i] & 0xc0) != 0x80)
            return 0;
    }
    return bytes;
}

/* |text| inside a JSON string; gives the new length of |out|, which is never above |cap|. */
static inline size_t bf_log_escape(const char *text, size_t text_len, char *out, size_t len,
                                   size_t cap)
{
    for (size_t i = 0; i < text_len;) {
        char escape[8];
        const char *piece = escape;
        size_t bytes = bf_log_character(text + i, text_len - i);
        int n = (int)bytes;
        if (bytes == 0)
            n = snprintf(escape, sizeof(escape), "\\ufffd");
        else if (text[i] == '"' || text[i] == '\\')
            n = snprintf(escape, sizeof(escape), "\\%c", text[i]);
        else if ((uint8_t)text[i] < 0x20 || text[i] == 0x7f)
            n = snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)text[i]);
        else
            piece = text + i;
        if (len + (size_t)n > cap)
            break;
        memcpy(out + len, piece, (size_t)n);
        len += (size_t)n;
        i += bytes > 0 ? bytes : 1;
    }
    return len;
}

static inline void bf_log_emit(enum bf_log_level level, const char *plane, const char *text,
                               size_t text_len)
{
    char line[BF_LOG_JSON_BYTES_MAX];
    char when[32];
    struct timespec now;
    struct tm tm;
    bool is_json = atomic_load_explicit(&bf_log_is_json, memory_order_relaxed);
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t at = strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(when + at, sizeof(when) - at, ".%03ldZ", now.tv_nsec / 1000000);
    const char *format = is_json
                             ? "{\"time\":\"%s\",\"level\":\"%s\",\"plane\":\"%s\",\"message\":\""
                             : "%s %s %.32s ";
    int n = snprintf(line, sizeof(line), format, when, bf_log_level_name(level), plane);
    size_t len = n > 0 ? (size_t)n : 0;
    if (is_json) { /* room for the end */
        len = bf_log_escape(text, text_len, line, len, sizeof(line) - 3);
        memcpy(line + len, "\"}", 2);
        len += 2;
    } else {
        memcpy(line + len, text, text_len);
        len += text_len;
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
    int n = vsnprintf(text, sizeof(text), format, args);
    size_t len = n > 0 ? (size_t)n : 0;
    if (len >= sizeof(text)) { /* cut, but never inside a character */
        size_t whole = len = sizeof(text) - 1;
        while (whole > len - 4 && ((uint8_t)text[whole - 1] & 0xc0) == 0x80)
            whole--;
        if (bf_log_character(text + whole - 1, len - (whole - 1)) == 0)
            len = whole - 1;
    }
    bf_log_emit(level, plane, text, len);
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
