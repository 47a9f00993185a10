/*
 * Who may use the admin port: whoever can read the token file. A web page that was lured to a name
 * which resolves to this machine (DNS rebinding) cannot, and is told apart by the Host and Origin
 * that its browser sends along. Pure, but for opening the file.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "belfry/base/cursor.h"

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

/* Whether a request with this Host header was meant for this port: the names of this machine's
 * loopback, admin.host, and admin.names. Any address where admin.host is 0.0.0.0 or :: (a browser
 * cannot be lured by an address: what it shows came from there). */
bool bf_admin_host_is_ours(const struct bf_conf *conf, struct bf_bytes host);
/* Whether a page of this Origin is of this port itself: http or https and the very Host. */
bool bf_admin_origin_is_same(struct bf_bytes origin, struct bf_bytes host);
