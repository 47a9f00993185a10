/*
 * A notification as the push adapters see it, and the device that it goes to. A note is read from
 * an event's fragment (struct bf_event.fragment, also what a row of the push queue keeps), so a
 * push that leaves now and one that leaves a queue in an hour are built alike. No I/O; any thread,
 * one owner.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <yyjson.h>

#include "belfry/base/cursor.h"
#include "belfry/base/id.h"
#include "belfry/base/limits.h"
#include "belfry/shm/push_wire.h"
#include "belfry/shm/push_wire.h"
#include "channels/channel.h"

/* What fits a provider's 4 KiB is far smaller; a larger fragment is refused before it is parsed. */
#define BF_PUSH_FRAGMENT_BYTES_MAX BF_EVENT_BYTES_MAX
/* How long an event without a ttl is worth pushing (DESIGN 6). */
#define BF_PUSH_TTL_DEFAULT_MS (24u * 3600u * 1000u)

/* A phone may have one app of two tenants: a collapse key must replace nothing of the other's. So a
 * tenant's key reaches providers as this many characters of the hash of both; the default tenant's
 * as it is. All providers take so many (Web Push: 32). */
#define BF_PUSH_OWN_COLLAPSE_BYTES 32u

struct bf_push_note {
    struct bf_content content; /* unread: the badge */
    struct bf_id message_id;
    enum bf_lane lane;
    uint64_t now_ms;
    uint64_t expires_ms; /* never 0: bf_push_note_open puts the default in */
    /* borrowed from the documents below */
    struct bf_bytes type, category, topic, title, body, action_url, collapse_key, image;
    yyjson_val *data;    /* object or NULL */
    yyjson_val *actions; /* array or NULL */
    yyjson_val
        *overrides[BF_PUSH_KIND_COUNT]; /* object or NULL: the event's overrides.push.<provider> */
    yyjson_doc *docs[2];
    char own_collapse[BF_PUSH_OWN_COLLAPSE_BYTES]; /* collapse_key of a tenant's own, see there */
};

/*
 * Reads |source|. Returns 0; the note is then closed with bf_push_note_close and does not need the
 * source any more. BF_ERR_MALFORMED / BF_ERR_TOO_LARGE / -ENOMEM with |why| filled otherwise.
 */
int bf_push_note_open(const struct bf_content_source *source, struct bf_push_note *ret,
                      char why[BF_WHY_BYTES]);
void bf_push_note_close(struct bf_push_note *note);
/* The APNs broadcast channel that the event is for, and the app it belongs to (overrides.push.apns:
 * channel, app). False: none. Borrowed from the note. */
bool bf_push_note_channel(const struct bf_push_note *note, struct bf_bytes *ret_channel,
                          struct bf_bytes *ret_app);

enum bf_platform {
    BF_PLATFORM_IOS = 0, /* and its relatives */
    BF_PLATFORM_ANDROID = 1,
    BF_PLATFORM_WEB = 2,
    BF_PLATFORM_COUNT
};
const char *bf_platform_name(enum bf_platform platform); /* "ios", "android", "web" */
/* In any case: "iOS" is ios. -1 when there is none of that name. */
int bf_platform_find(struct bf_bytes name);
const char *bf_push_kind_name(enum bf_push_kind kind); /* "apns", "fcm", "webpush" */
int bf_push_kind_find(struct bf_bytes name);

/* Where a push goes. Borrowed from the caller. */
struct bf_push_target {
    enum bf_push_kind kind;
    enum bf_platform platform; /* FCM: which part of the message to write */
    bool is_broadcast;         /* APNs: |token| is a broadcast channel's id (Live Activities) */
    bool is_certificate; /* APNs: the pool authenticates by certificate: not all push types are
                            allowed */
    struct bf_bytes app_topic; /* APNs: bundle id. FCM: project id. Web Push: "" */
    struct bf_bytes token; /* APNs: hex digits. FCM: registration token. Web Push: endpoint URL */
    struct bf_bytes p256dh, auth; /* Web Push: keys of the subscription, base64url */
};

#define BF_PUSH_TOKEN_BYTES_MAX                                                                    \
    1024u /* FCM's have about 160 characters; none is documented to be longer */
#define BF_PUSH_APNS_TOKEN_MAX     512u  /* hex digits; 64 today, "do not assume a length" */
#define BF_PUSH_ENDPOINT_BYTES_MAX 1024u /* Web Push endpoints have 200 to 500 */
#define BF_PUSH_APP_TOPIC_MAX      200u

/* Whether a token can be one of |kind|: 0, or BF_ERR_MALFORMED / BF_ERR_TOO_LARGE with |why|. */
int bf_push_target_check(const struct bf_push_target *target, char why[BF_WHY_BYTES]);
/* Splits an endpoint: "https://host[:port]/path". Borrowed from it; the path begins with '/'.
 * False: not such a URL, or with user, fragment or other characters than a request target may have.
 */
bool bf_push_endpoint_split(struct bf_bytes endpoint, struct bf_bytes *ret_authority,
                            struct bf_bytes *ret_path);
