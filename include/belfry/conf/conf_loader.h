/*
 * What all parts of the loader (conf_load.h) share: the state of one load, its error, "did you
 * mean", and the reading of small files. An error is one line for a person: file:line, what is
 * wrong, what is allowed. Used by the thread that loads; header-only as conf_load.h is.
 */
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <yaml.h>

#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "belfry/conf/conf_table.h"

/* "log.kafka.topics.transactional" is 30; an unknown key is cut in the message. */
#define BF_CONF_PATH_BYTES_MAX 160u

struct bf_conf_loader {
    const char *path;
    struct bf_conf *conf;
    yaml_document_t doc;
    uint32_t line[BF_CONF_OPTION_COUNT]; /* where an option was set; 0: nowhere */
    char *err;
    size_t err_len;
};

/* Words the error once and gives BF_ERR_MALFORMED; line 0: about the whole file. */
__attribute__((format(printf, 3, 4))) static inline int
bf_conf_fail(struct bf_conf_loader *l, size_t line, const char *format, ...)
{
    va_list args;
    int n = line > 0 ? snprintf(l->err, l->err_len, "%s:%zu: ", l->path, line)
                     : snprintf(l->err, l->err_len, "%s: ", l->path ? l->path : "defaults");
    va_start(args, format);
    if (n >= 0 && (size_t)n < l->err_len)
        bf_vformat(l->err + n, l->err_len - (size_t)n, format, args);
    va_end(args);
    return BF_ERR_MALFORMED;
}

static inline size_t bf_conf_line(const yaml_node_t *node)
{
    return node->start_mark.line + 1;
}

static inline const char *bf_conf_scalar(const yaml_node_t *node)
{
    return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

/* ---- "did you mean" ---- */

/* Levenshtein distance; strings longer than the path limit count as far away. */
static inline unsigned bf_conf_distance(const char *a, const char *b)
{
    unsigned row[BF_CONF_PATH_BYTES_MAX + 1];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);
    if (a_len > BF_CONF_PATH_BYTES_MAX || b_len > BF_CONF_PATH_BYTES_MAX)
        return BF_CONF_PATH_BYTES_MAX;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            unsigned least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = change < least ? change : least;
        }
    }
    return row[b_len];
}

static inline const char *bf_conf_nearest(const char *path)
{
    const struct bf_conf_option *options = bf_conf_options();
    const char *best = options[0].path;
    unsigned best_distance = bf_conf_distance(path, best);
    for (unsigned i = 1; i < BF_CONF_OPTION_COUNT + BF_CONF_LIST_COUNT; i++) {
        const char *known =
            i < BF_CONF_OPTION_COUNT ? options[i].path : bf_conf_lists()[i - BF_CONF_OPTION_COUNT];
        unsigned distance = bf_conf_distance(path, known);
        if (distance < best_distance) {
            best_distance = distance;
            best = known;
        }
    }
    return best;
}

/* ---- small files ---- */

/* Reads a whole small file; a secret's trailing line end is not part of it. */
static inline int bf_conf_read_file(const char *path, uint8_t *out, size_t cap, uint32_t *ret_len)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return -errno;
    size_t len = fread(out, 1, cap, file);
    bool is_too_long = len == cap && fgetc(file) != EOF;
    bool has_failed = ferror(file) != 0;
    fclose(file);
    if (has_failed)
        return -EIO;
    if (is_too_long)
        return BF_ERR_TOO_LARGE;
    while (len > 0 && (out[len - 1] == '\n' || out[len - 1] == '\r'))
        len--;
    *ret_len = (uint32_t)len;
    return 0;
}

/* A PEM text whose line ends are the two characters \ and n, as they stand in JSON: no library
 * reads it. */
static inline bool bf_conf_is_escaped_pem(const void *text, size_t len)
{
    static const char begin[] = "-----BEGIN ";
    return memmem(text, len, begin, sizeof(begin) - 1) && memmem(text, len, "-----\\n", 7);
}
#define BF_CONF_ESCAPED_PEM                                                                        \
    "holds the two characters \\n where lines should end (it was copied out of JSON); "            \
    "printf '%b' writes it right"

/* A PEM file: text with a BEGIN line. Whether it makes sense is checked by who has OpenSSL. */
static inline int bf_conf_read_pem(struct bf_conf_loader *l, size_t line, const char *what,
                                   const char *path, uint8_t *out, size_t cap, uint32_t *ret_len)
{
    static const char begin[] = "-----BEGIN ";
    int rc = bf_conf_read_file(path, out, cap, ret_len);
    if (rc == BF_ERR_TOO_LARGE)
        return bf_conf_fail(l, line, "%s: '%s' is larger than %zu bytes", what, path, cap);
    if (rc != 0)
        return bf_conf_fail(l, line, "%s: cannot read '%s': %s", what, path, bf_err_text(rc));
    if (bf_conf_is_escaped_pem(out, *ret_len))
        return bf_conf_fail(l, line, "%s: '%s' %s", what, path, BF_CONF_ESCAPED_PEM);
    if (!memmem(out, *ret_len, begin, sizeof(begin) - 1))
        return bf_conf_fail(l, line, "%s: '%s' is not a PEM file", what, path);
    return 0;
}
