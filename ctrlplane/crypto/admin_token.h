/*
 * Who may use the admin port: whoever can read the token file. The node makes it, belfryctl reads
 * it. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct bf_conf;

/* "bfa_" and 48 hex digits, terminated. */
#define BF_ADMIN_TOKEN_BYTES 53u

/* admin.token_file, or admin.token in the state directory. */
void bf_admin_token_path(const struct bf_conf *conf, char *out, size_t cap);

/* Reads the token, makes it where there is none. A file that other users can read is replaced: they
 * may have read it. Returns 0, or an error and one line in |err|. */
int bf_admin_token_open(const char *path, char token[BF_ADMIN_TOKEN_BYTES], char *err,
                        size_t err_len);
/* Reads it, changes nothing. 0, or -errno, or BF_ERR_MALFORMED. */
int bf_admin_token_read(const char *path, char token[BF_ADMIN_TOKEN_BYTES], bool *ret_is_private);
