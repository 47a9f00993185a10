/*
 * A channel: a way to people by some provider. It is a folder with an implementation of this
 * contract, and a row in table/channels.def; queue, retries, breakers, dead letters, redrive,
 * status and metrics come from outbound/, which knows no channel by name.
 *
 * How one message goes, on the shard's thread of its person:
 *
 * - open: what the event says, as the channel reads it; once an event and person
 * - endpoints: where the person can be reached; or endpoint: the one that a row waits for
 * - pool: whose connection and credential an endpoint goes by; limits, breaker and retry budget are
 *   kept a pool
 * - launch: prepares the request; nothing leaves yet
 * - flush: the turn's batch is written: what launch prepared leaves
 * - classify: what the answer means
 * - heed: what follows from it for endpoint and credential
 *
 * An answer comes to the shard as a receipt, or by env.answered from any thread; the low byte of
 * its attempt's id leads to the shard.
 */
#pragma once

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/id.h"
#include "channels/turn.h"
#include "channels/verdict.h"
#include "ingest/event.h"
#include "store/legs.h"

struct bf_provider_answer;
struct bf_vault;

/* Why something was refused: one word, ": ", a sentence (as a dead letter's reason). */
#define BF_WHY_BYTES 200u
/* Pools of a channel that a shard knows at once. */
#define BF_POOLS_MAX 256u
/* What a channel keeps of a sending between pool() and launch(). */
#define BF_SENDING_OWN_BYTES 4096u

/* A channel that runs: its own, one a node. */
struct bf_channel_state;

struct bf_channel_env { /* for the call; what it points to lives until stop */
    const struct bf_conf *conf;
    struct bf_store *store;
    const struct bf_vault
        *vault; /* opens what endpoints are sealed with; NULL: nothing is sealed */
    uint32_t shards;
    void (*changed)(void *arg); /* a snapshot for the dataplane is due. Any thread */
    /* The result of an attempt, copied. Any thread. */
    void (*answered)(void *arg, const struct bf_provider_answer *answer);
    void *arg;
};

/* ---- what is sent, and where ---- */

struct bf_content_source { /* borrowed for the call */
    struct bf_id message_id;
    enum bf_lane lane;
    struct bf_bytes tenant; /* "": the default one */
    uint64_t now_ms;
    uint64_t expires_ms;       /* 0: the fragment's, else the channel's default */
    struct bf_bytes fragment;  /* members of a JSON object, without braces */
    struct bf_bytes overrides; /* of the channel, "" = none */
};

/* What an event says to a person, as the channel reads it: the first member of the channel's own.
 */
struct bf_content {
    bool has_unread;
    uint32_t unread; /* what the person has not read, this message with it; set by who opened it */
};

enum bf_endpoint_state {
    BF_ENDPOINT_LIVE = 0,
    BF_ENDPOINT_DEAD = 1,  /* its provider said so */
    BF_ENDPOINT_STALE = 2, /* nobody has heard of it for so long that nothing is sent to it */
};

/* Where one message of one channel can go. Borrowed during the call that gives it; copied with the
 * bytes of its two texts it stays as it is. */
struct bf_endpoint {
    struct bf_id id;
    enum bf_endpoint_state state;
    uint8_t kind, form; /* the channel's own: push: enum bf_push_kind, enum bf_platform */
    uint64_t dead_ms;
    uint64_t registered_ms;
    uint8_t hash[16]; /* of the address in its one form, keyed: tells it from its successor */
    struct bf_bytes account; /* whose credential it goes by (push: app) */
    struct bf_bytes address; /* as it is stored: sealed */
};
typedef int (*bf_endpoint_fn)(void *arg, const struct bf_endpoint *endpoint);

/* ---- one attempt ---- */

struct bf_pool_info {
    uint32_t id; /* of the channel's; 0: none yet */
    bool is_ready;
    uint32_t limit_per_min; /* that the provider allows the node; 0: none is known */
    char failover[65];      /* account that takes over while this one cannot; "" = none */
};

/* One leg on its way to one endpoint, from pool() to launch(). */
struct bf_sending {
    struct bf_turn *turn;
    const struct bf_leg_row *row;
    const struct bf_endpoint *endpoint;
    struct bf_content *content;
    uint64_t attempt;                                       /* id; set before launch */
    uint32_t pool;                                          /* set before launch */
    alignas(max_align_t) uint8_t own[BF_SENDING_OWN_BYTES]; /* the channel's */
};

/* What is known of an attempt until its answer comes. */
struct bf_attempt {
    uint64_t id; /* never 0; low byte: the partition of its person */
    const struct bf_leg_row
        *row;      /* without its texts; endpoint and number are those of this attempt */
    uint32_t pool; /* 0: not known, found with a worker after a restart */
    uint8_t kind;  /* of its endpoint, as it was */
    uint64_t registered_ms;
    uint8_t hash[16];
};

enum bf_answer_end {
    BF_ANSWERED = 0,
    BF_NOT_SENT =
        1, /* it never left, or the peer said that it did not process it: safe to send again */
    BF_UNKNOWN = 2, /* it left, no answer came: again may be twice (DESIGN 4.4) */
    BF_ANSWER_END_COUNT
};

struct bf_provider_answer {
    uint64_t attempt;
    uint8_t channel; /* enum bf_channel */
    enum bf_answer_end end;
    uint8_t why; /* the channel's own: of an end without an answer */
    uint16_t status;
    uint32_t retry_after_s; /* BF_NO_RETRY_AFTER: not said */
    uint32_t answer_us;     /* from request to answer */
    struct bf_bytes body;   /* what is kept of it */
};
#define BF_NO_RETRY_AFTER UINT32_MAX

/* ---- for people ---- */

/* A pool and what its credential is like. Texts are borrowed during the call. */
struct bf_pool_row {
    uint32_t pool; /* 0: an account that no endpoint has needed yet */
    const char *kind;
    const char *account, *authority;
    const char *failover; /* account that takes over, "" = none */
    const char *why;      /* what is wrong by now, "" = nothing */
    bool is_ready;
    bool is_certificate; /* which has no times here */
    uint32_t addresses;
    uint64_t minted_ms;  /* wall, of the token in use; 0: there is none */
    uint64_t renew_ms;   /* when the next is asked for */
    uint64_t expires_ms; /* 0: the provider says nothing */
    uint32_t failures;   /* in a row */
};

/* ---- the contract ---- */

/*
 * Shard thread unless it says otherwise; the channel is shared by all shards. Codes are those of
 * base/err.h. A function that is marked "or NULL" may be missing.
 */
struct bf_channel_ops {
    /* Main thread. On failure a line in |err|. */
    int (*start)(const struct bf_channel_env *env, struct bf_channel_state **ret, char *err,
                 size_t n);
    void (*stop)(struct bf_channel_state *channel);
    /* Another configuration, which outlives the channel; on an error nothing changed. Any one
     * thread. Or NULL: nothing of it concerns the channel. */
    int (*reload)(struct bf_channel_state *channel, const struct bf_conf *conf, char *err,
                  size_t n);
    /* Appends what the dataplane has to know (shm/snapshot.h). Main thread. Or NULL: the dataplane
     * does not send for it. */
    void (*snapshot)(struct bf_channel_state *channel, struct bf_writer *w);

    /* 0 and *ret, which close() frees; else why. Any thread. */
    int (*open)(struct bf_channel_state *channel, const struct bf_content_source *source,
                struct bf_content **ret, char why[BF_WHY_BYTES]);
    void (*close)(struct bf_content *content);

    /* All of a person's, dead ones too. A non-zero result of |each| ends it and is returned. */
    int (*endpoints)(struct bf_channel_state *channel, const struct bf_turn *turn,
                     struct bf_uid uid, bf_endpoint_fn each, void *arg);
    /* The one that |row| is for, whatever its state. BF_ERR_NOT_FOUND: gone. BF_ERR_MALFORMED with
     * |why|: a row of nobody's whose content names no place. */
    int (*endpoint)(struct bf_channel_state *channel, const struct bf_turn *turn,
                    const struct bf_leg_row *row, const struct bf_content *content,
                    bf_endpoint_fn use, void *arg, char why[BF_WHY_BYTES]);

    /* The pool of the endpoint's account, or of |account| (not ""), which takes over. Not 0: no
     * attempt can help, dead letter with |why|. */
    int (*pool)(struct bf_channel_state *channel, struct bf_sending *sending,
                struct bf_bytes account, struct bf_pool_info *ret, char why[BF_WHY_BYTES]);
    /* 0: prepared, leaves with flush(). BF_ERR_FULL: no room now. BF_ERR_EXPIRED: nobody waits for
     * it any more. Else no attempt can help, dead letter with |why|. */
    int (*launch)(struct bf_channel_state *channel, struct bf_sending *sending,
                  char why[BF_WHY_BYTES]);
    /* The turn's batch is written. Or NULL: what launch() prepared is in turn->launches. */
    void (*flush)(struct bf_channel_state *channel, struct bf_turn *turn);

    /* Pure; any thread. */
    void (*classify)(const struct bf_attempt *attempt, const struct bf_provider_answer *answer,
                     struct bf_verdict *ret);
    /* What a verdict means for endpoint and credential; rows into the turn's batch. Or NULL:
     * nothing. */
    void (*heed)(struct bf_channel_state *channel, struct bf_turn *turn,
                 const struct bf_attempt *attempt, const struct bf_verdict *verdict);

    /* For people: kinds of endpoints by name; every pool, in the order of the configuration. |each|
     * must not call the channel. Returns the number of accounts. Any thread. */
    const char *(*kind_name)(uint8_t kind);
    uint32_t (*pools)(struct bf_channel_state *channel,
                      void (*each)(void *arg, const struct bf_pool_row *row), void *arg);
};

/* The message id that a row's channel, kind, endpoint and redrive number make (DESIGN 4.4). Pure.
 */
void bf_leg_message_id(struct bf_leg_row *row);
