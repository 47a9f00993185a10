/* The two questions that push asks the outside: an access token by libcurl, addresses by
 * getaddrinfo. Both block: the thread of push_creds alone calls them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/shm/push_wire.h"

#define BF_PUSH_ADDRESS_TEXT_BYTES 46u /* INET6_ADDRSTRLEN */
#define BF_PUSH_FETCH_TIMEOUT_S    10u

struct bf_push_addresses {
    uint32_t count;
    char text[BF_PUSH_ADDRESSES_MAX]
             [BF_PUSH_ADDRESS_TEXT_BYTES]; /* sorted, each padded with zeros */
};

/* Once a process, before the rest. 0 or BF_ERR_UNSUPPORTED. */
int bf_push_fetch_init(void);
/* Posts |form| to |url| (https) and reads the answer: malloc'ed authorization, life. |ca_pem| NULL:
 * the system's. Codes of base/err.h with a line in |why|, never with what is secret. */
int bf_push_fetch(const char *url, const char *form, const char *ca_pem, char **ret_authorization,
                  uint64_t *ret_life_ms, char *why, size_t why_len);
/* Addresses of |host|. |allow|: egress.allow, beside which only public ones are taken; NULL: all
 * are. */
void bf_push_resolve(const char *host, const char *allow, struct bf_push_addresses *ret);
