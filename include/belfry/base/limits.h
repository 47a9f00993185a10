/*
 * Every limit that both planes (or their peers) see, with its unit, its reason, and what happens
 * when it is reached. Limits that concern one plane only are defined in that plane.
 */
#pragma once

/* A holder bitmap is one 64-bit word a block (DESIGN 2), so a node has at most 64 workers. */
#define BF_WORKERS_MAX 64u
/* Fan-out shards plus the control producer (DESIGN 2: "<= 8 in all"). */
#define BF_PRODUCERS_MAX 8u

enum bf_lane {
    BF_LANE_CRITICAL = 0,
    BF_LANE_NORMAL = 1,
    BF_LANE_BULK = 2,
    BF_LANE_COUNT = 3,
};

/* Ids are any UTF-8 up to 128 bytes (ING-11). Longer: 400 / 4401. */
#define BF_USER_ID_BYTES_MAX 128u
#define BF_TENANT_BYTES_MAX  64u
/* DESIGN 5: device <= 64 bytes. Longer: 4400. */
#define BF_DEVICE_BYTES_MAX 64u
#define BF_TOPIC_BYTES_MAX  128u
#define BF_TYPE_BYTES_MAX   128u
/* A client's `ref` is echoed, so it must fit a receipt. Longer: error, temporary:false. */
#define BF_REF_BYTES_MAX 64u
/* A message id on the wire: UUID text. */
#define BF_UUID_TEXT_BYTES 36u
/* One event as a producer sends it; the Kafka default allows 1 MiB, people do not read 64 KiB. 413.
 */
#define BF_EVENT_BYTES_MAX (64u * 1024u)
/* Named recipients of one event (ING-1). More: 400, use a topic or a segment. */
#define BF_RECIPIENTS_MAX 1000u
/* A client's frame: a connect with a 4 KiB JWT and a list of topics. Larger: close 1009. */
#define BF_CLIENT_FRAME_BYTES_MAX (16u * 1024u)
/* Topics one socket may be subscribed to; more: error "too_many_topics". */
#define BF_CONN_TOPICS_MAX 64u

/* Replay of one resume (DESIGN 5). Beyond: resumed:false, list the inbox. */
#define BF_REPLAY_MESSAGES_MAX 1000u
#define BF_REPLAY_BYTES_MAX    (1024u * 1024u)

/* DESIGN 5 and WS-2: an unauthenticated socket lives 8 s. */
#define BF_CONNECT_DEADLINE_MS 8000u
/* DESIGN 5: an authenticated connection waits for its welcome while ctrlplane is away. Then 4013.
 */
#define BF_WELCOME_DEADLINE_MS 30000u
/* DESIGN 4.7: acknowledgement deadline. */
#define BF_ACK_DEADLINE_MS 10000u
/* DESIGN 5: a websocket ping unless something was sent. WS-4: presence expires after 60 s. */
#define BF_PING_INTERVAL_MS    30000u
#define BF_PRESENCE_TIMEOUT_MS 60000u
/* JWT clock leeway (DESIGN 5). */
#define BF_JWT_LEEWAY_S 30u
/* A sleeper looks at its rings at least this often, in case a wake-up was lost (DESIGN 2). */
#define BF_DOORBELL_TIMEOUT_MS 100u
/* DESIGN 2: death of the other side is seen within 1 s. */
#define BF_DEATH_CHECK_MS 250u

/* Close codes of belfry.v1 (DESIGN 5). */
enum bf_close {
    BF_CLOSE_DRAIN = 4000,
    BF_CLOSE_SLOW = 4001,
    BF_CLOSE_EXPIRED = 4002,
    BF_CLOSE_REPLACED = 4003,
    BF_CLOSE_NO_SIGN_OF_LIFE = 4004,
    BF_CLOSE_LIFETIME = 4005,
    BF_CLOSE_OVERLOADED = 4013,
    BF_CLOSE_PROTOCOL = 4400,
    BF_CLOSE_TOKEN = 4401,
    BF_CLOSE_FORBIDDEN = 4403,
    BF_CLOSE_NO_CONNECT = 4408,
    BF_CLOSE_REVOKED = 4409,
};
