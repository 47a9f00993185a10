/*
 * One form for what can be written in several: tokens, endpoints and keys are brought to it before
 * they are hashed, compared or stored, so that one phone is one device. Pure; any thread.
 *
 * - APNs: hex digits in lower case, without blanks and the <> that NSData prints around them
 * - FCM: a registration token is opaque and tells upper case from lower; blanks around it go
 * - Web Push: the endpoint as RFC 3986 section 6.2.2 and the URL standard of browsers have it:
 *   scheme and host in lower case, numbers of IPv4 as four decimals, IPv6 by RFC 5952, no dot after
 *   the host, no port 443, no dot segments, escapes in upper case and only where they are needed,
 *   no fragment (it is never sent); keys as base64url without padding
 */
#pragma once

#include "channels/push/push_note.h"

/* Blanks between the digits of an APNs token, escapes of an endpoint: what is given may be longer
 * than what it means. */
#define BF_PUSH_TOKEN_GIVEN_MAX (3u * BF_PUSH_TOKEN_BYTES_MAX)
/* What may be given for a key, blanks and padding among it. */
#define BF_PUSH_KEY_GIVEN_MAX 128u

struct bf_push_canon {
    char token[BF_PUSH_TOKEN_GIVEN_MAX + 64u]; /* an IPv6 address may become a bit longer */
    char p256dh[BF_PUSH_KEY_GIVEN_MAX];
    char auth[BF_PUSH_KEY_GIVEN_MAX];
};

/* Rewrites token and keys of |target|; they are then borrowed from |room|. What has no such form
 * (and so is not valid) stays as it is: bf_push_target_check refuses it. */
void bf_push_target_canon(struct bf_push_target *target, struct bf_push_canon *room);

enum bf_host_kind { BF_HOST_BAD, BF_HOST_NAME, BF_HOST_V4, BF_HOST_V6 };
#define BF_HOST_TEXT_MAX 256u
struct bf_host {
    enum bf_host_kind kind;
    uint8_t address[16];         /* V4: the first 4; network order */
    char text[BF_HOST_TEXT_MAX]; /* lower case; V6 without its brackets */
};
/* A host of a URL, in any way that a browser or a resolver would understand ("0x7f.1" is an
 * address). BF_HOST_BAD: none. */
enum bf_host_kind bf_host_read(struct bf_bytes given, struct bf_host *ret);
/* "host" or "host:port" of an https URL; 443 where it names no port. False: neither. */
bool bf_authority_read(struct bf_bytes authority, struct bf_host *ret, unsigned *ret_port);
