/*
 * Where this node may send when people say where to: Web Push endpoints come from browsers, and one
 * that names an address of our own network would have the node knock on its neighbours' doors
 * (server-side request forgery). `egress.allow` lists what is meant all the same. Pure; any thread.
 *
 * Two looks: at the door, at what the endpoint says (bf_egress_host: addresses in any notation,
 * names that mean this machine or this network); and once a name has been resolved, at every
 * address before a connection is made (bf_egress_address), since a name may be pointed anywhere at
 * any time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "channels/push/push_canon.h"

/* Whether |allow| ("localhost, 10.0.0.0/8, push.corp.example") names the host or, for an address,
 * a network that it is in. */
bool bf_egress_is_listed(const char *allow, const struct bf_host *host);
/* A host as an endpoint names it. False: it is of a private network and not listed. */
bool bf_egress_host(const char *allow, const struct bf_host *host);
/* An address (AF_INET: in_addr, AF_INET6: in6_addr) that |name| was resolved to. */
bool bf_egress_address(const char *allow, const char *name, int family, const void *address);
/* What every IPv6 form of an IPv4 address (mapped, compatible, NAT64, 6to4) means is looked at
 * too. */
bool bf_egress_is_public(int family, const void *address);
/* Whether |allow| can be read: every entry is a host name, an address or a network. The first that
 * is not comes back in *ret_bad. */
bool bf_egress_check(const char *allow, struct bf_bytes *ret_bad);
