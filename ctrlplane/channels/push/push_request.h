/*
 * A note and a target into the request that the dataplane sends (struct bf_cmd_push,
 * shm/push_wire.h), for APNs, FCM HTTP v1 and Web Push (PROVIDERS 1.2, 2, 3). Payload limits are
 * checked here: what is too large is refused, never cut. Pure but for the random bytes of Web Push
 * encryption; any thread.
 *
 * The event's overrides.push shapes it, by provider; a member of another name or kind is refused:
 *
 * - apns: push_type, priority (1, 5, 10), expiration (epoch s), collapse_id, topic, mdm (text), aps
 *   (merged over ours), payload (members beside aps)
 * - fcm: priority ("normal", "high"), data_only (bool), notification, android, apns, webpush,
 *   fcm_options (each merged over ours; the part of another platform is not sent)
 * - webpush: urgency, topic, ttl (s), payload (members of the encrypted object)
 *
 * What an app finds: beside aps (APNs), in data (FCM) or as the whole object (Web Push) the
 * message's id, type, action_url, actions, image, and the event's data. FCM takes texts only, so
 * other values of data travel as their JSON text, and our own keys begin with "belfry_".
 */
#pragma once

#include "channels/push/push_note.h"

#define BF_APNS_PAYLOAD_BYTES_MAX      4096u
#define BF_APNS_PAYLOAD_VOIP_BYTES_MAX 5120u /* VoIP, and broadcast channels */
#define BF_APNS_COLLAPSE_BYTES_MAX     64u
#define BF_APNS_STORED_S_MAX           (30u * 86400u) /* longer is not kept anyway (PROVIDERS 1.2) */
#define BF_FCM_PAYLOAD_BYTES_MAX       4096u
#define BF_FCM_TTL_S_MAX               2419200u /* four weeks */
#define BF_WEBPUSH_TTL_S_MAX                                                                       \
    2419200u                           /* what push services keep at most; more is refused by some \
                                        */
#define BF_WEBPUSH_TOPIC_CHARS_MAX 32u /* RFC 8030 section 5.4 */

/*
 * Writes the request into |out| (BF_PUSH_REQUEST_BYTES_MAX is always enough) and its length into
 * *ret_len. Returns 0; BF_ERR_TOO_LARGE, BF_ERR_MALFORMED or BF_ERR_EXPIRED with |why|
 * ("payload_too_large: ...", "bad_override: ...", "reserved_key: ...", "expired: ...", "bad_token:
 * ..."): dead-letter it, sending it again cannot help.
 */
int bf_push_request_build(const struct bf_push_note *note, const struct bf_push_target *target,
                          uint8_t *out, size_t cap, size_t *ret_len, char why[BF_WHY_BYTES]);

/* Builds for a device of the kind that nobody has, to see what would fail: 0, BF_ERR_MALFORMED or
 * BF_ERR_TOO_LARGE with |why|. |is_channel|: for an APNs broadcast channel. Nothing is encrypted.
 */
int bf_push_request_try(const struct bf_push_note *note, enum bf_push_kind kind,
                        enum bf_platform platform, bool is_channel, char why[BF_WHY_BYTES]);

/* The collapse key as a provider takes it: itself, or base64url of its SHA-256 when it has more
 * than |max| bytes, characters outside the provider's alphabet, or a length that no base64url has
 * (RFC 8030 section 5.4: services decode it). |out| has |max| + 1 bytes,
 * terminated. */
void bf_push_collapse_id(struct bf_bytes key, size_t max, bool is_base64url_only, char *out);
