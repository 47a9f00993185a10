/* Checks certificates when they are configured, before any connection needs them. Reads PEM texts.
 * Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "belfry/base/cursor.h"

struct bf_conf;

/* Whether tls.certificates, tls.client_ca and those of api.tls can be used: certificates and chains
 * parse, each key belongs to its certificate, none is over. Returns 0, or BF_ERR_MALFORMED with one
 * line in |err|. */
int bf_certificates_check(const struct bf_conf *conf, char *err, size_t err_len);

/* Whether |cert| (PEM, followed by its chain) belongs to |key| (PEM). */
bool bf_is_certificate_pair(struct bf_bytes cert, struct bf_bytes key);
