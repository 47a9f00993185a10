/*
 * Keeps web pages away from the admin port. A page can make a browser send requests to this machine
 * under a name of its own (DNS rebinding); it has no admin token (crypto/admin_token.h), and its
 * browser's Host and Origin headers give it away. Pure; any thread.
 */
#pragma once

#include <stdbool.h>

#include "belfry/base/cursor.h"

struct bf_conf;

/* Whether a request with this Host header was meant for this port: the names of this machine's
 * loopback, admin.host, and admin.names. Any address where admin.host is 0.0.0.0 or :: (a browser
 * cannot be lured by an address: what it shows came from there). */
bool bf_admin_host_is_ours(const struct bf_conf *conf, struct bf_bytes host);
/* Whether a page of this Origin is of this port itself: http or https and the very Host. */
bool bf_admin_origin_is_same(struct bf_bytes origin, struct bf_bytes host);
