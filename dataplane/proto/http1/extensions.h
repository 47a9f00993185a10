/*
 * Sec-WebSocket-Extensions (RFC 6455 section 9.1) as far as permessage-deflate goes (RFC 7692
 * section 7.1). Of the client's offers, in its order of preference, the first that we can accept is
 * kept. We never keep a compression context between messages, in either direction, and say so in
 * the answer, which the RFC allows whatever was offered. So an idle connection costs no window, and
 * one compressed copy serves everyone. Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

#define BF_WINDOW_BITS_MIN 8u
#define BF_WINDOW_BITS_MAX 15u
/* The longest answer: all four parameters. */
#define BF_EXTENSIONS_BYTES_MAX 160u

struct bf_deflate_offer {
    bool is_offered;
    bool limits_server;  /* server_max_window_bits was there */
    uint8_t server_bits; /* our window, 8 to 15 */
    uint8_t client_bits; /* 0: client_max_window_bits was not there; else the most it will use */
};

/* Takes one header value; a header may come several times. Returns 0, or -400 when it breaks the
 * grammar. Offers with parameters that are unknown, repeated or out of range are passed over. */
int bf_extensions_take(struct bf_bytes value, struct bf_deflate_offer *offer);

/* Writes the header line that agrees to |offer|, with CRLF. Returns its bytes. */
size_t bf_extensions_write(const struct bf_deflate_offer *offer, char out[BF_EXTENSIONS_BYTES_MAX]);
