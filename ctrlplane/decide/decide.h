/*
 * The decision about an event and a person: what happens on each channel, and why. One function
 * takes it when the event arrives, when a row of the queue is due, and when a dead letter is sent
 * again, so the same checks hold in each case.
 *
 * Pure: facts in, plan out. No store, clock, lock, ring, allocation or log line; any thread. A step
 * uses nothing but its facts. The steps and their order are in steps.def, one file and one function
 * each; a step may turn a leg (one channel of this event for this person) off, move it later, or
 * put it into a chain, never turn on what an earlier step turned off.
 *
 * The caller gathers the facts (fanout/gather.h on arrival, the queue for its rows) and applies the
 * plan. Two kinds of facts cost a read that most decisions do not need: which endpoints there are,
 * and whether the text can be read. The caller may first assume the good case (|reachable| all
 * ones, |subject.endpoint| and |subject.unreadable| 0). If bf_needs_endpoints then says that the
 * plan depends on them, the caller reads them, corrects the facts, and decides again.
 *
 * Times are milliseconds of the wall clock, masks are 1u << enum bf_channel. Everything that facts
 * point to is borrowed for the call; the plan holds no pointer.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/limits.h"
#include "ingest/event.h"
#include "prefs/prefs.h"
#include "terms/presence.h"
#include "terms/reason.h"

/* Flags, so that steps.def can say at which moments a step runs. */
enum bf_moment {
    BF_ARRIVES = 1u << 0,  /* an event, first or again, for one of its people */
    BF_DUE = 1u << 1,      /* a row of the queue whose time has come */
    BF_REDRIVEN = 1u << 2, /* a dead letter that a person sends again */
};

enum bf_when {
    BF_NEVER = 0,     /* not wanted: |reason| says why; BF_REASON_NONE: was not asked for */
    BF_NOW = 1,       /* in this turn */
    BF_LATER = 2,     /* at_ms, then it is decided again */
    BF_CHAINED = 3,   /* at_ms, unless the step before it in the chain has done it until then */
    BF_IN_DIGEST = 4, /* part of a message that is sent later; nothing plans it yet */
};

/* What is to be delivered: of an event, or of a row of the queue. */
struct bf_subject {
    struct bf_bytes type, category, topic; /* "" = none; preferences are about them */
    enum bf_lane lane;
    bool is_critical; /* priority critical, and the producer may say so */
    uint8_t channels; /* asked for, or the default where none was named. In-app need not be among
                       * them: what arrives for a person is kept in the inbox */
    bool is_named;    /* the producer named them */
    bool is_ordered;  /* `fallback`: each only if the one before failed */
    enum bf_channel first; /* named first */
    bool is_transient;     /* in-app for who is connected now, kept nowhere */
    bool is_broadcast;     /* the broadcast log has it in-app; only its push is decided here */
    bool is_nobodys;       /* goes to a provider's broadcast channel: there is no person */
    uint64_t created_ms;
    uint64_t expires_ms; /* 0: the default of the channel */
    uint8_t unreadable;  /* channels for which its text cannot be read */
    /* of a row of the queue */
    bool is_fallback;        /* a step of a chain: for every endpoint of the channel */
    uint64_t due_ms;         /* when it was due */
    enum bf_reason endpoint; /* why its endpoint cannot be used; BF_REASON_NONE: it can */
};

/* What the node's configuration decides by: a snapshot, the same for all decisions of a turn. */
struct bf_rules {
    uint32_t version;    /* rises with each reload */
    uint8_t channels;    /* that the node has a provider for; in-app always */
    uint64_t max_age_ms; /* an older event is stale: it reaches the inbox only (DESIGN 4.14) */
    uint64_t ttl_ms;     /* how long a message without expiry is worth a push */
    uint32_t ack_ms;     /* a chain waits so long for an acknowledgement before its next step */
    /* Chains that were due at |attached_ms| wait until |hold_until_ms|, because the people
     * concerned had no time to acknowledge after this process attached to the dataplane (DESIGN
     * 4.8). 0: none. */
    uint64_t attached_ms, hold_until_ms;
};

/* What is known of the person. */
struct bf_person {
    const struct bf_prefs *prefs; /* NULL: defaults */
};

struct bf_facts { /* borrowed for the call */
    enum bf_moment moment;
    uint64_t now_ms;
    const struct bf_subject *subject;
    const struct bf_rules *rules;
    const struct bf_person *person; /* NULL: nobody of this id, or erased */
    enum bf_presence presence;
    uint8_t subscribed; /* channels that the person's own subscription names; 0: it names none, or
                         * there is none */
    uint8_t reachable;  /* channels with at least one endpoint that can be used */
    bool is_known;      /* an earlier arrival was decided, and the inbox has the message */
    bool
        is_settled;  /* on arrival: what the earlier arrival began has its end, or waits in the
                      * queue. Of a row: the person has acknowledged its message, or dealt with it */
    bool is_counted; /* counted by an earlier decision (a retry, a device of a chain, a redrive) */
};

struct bf_leg_plan {
    enum bf_when when;
    enum bf_reason reason; /* of BF_NEVER and BF_LATER */
    uint64_t at_ms;        /* of BF_LATER and BF_CHAINED */
};

/* Ordered steps, each of which is tried only if the person did not take the one before: in-app,
 * then push. Also filled when push is off: its status would have come from the chain, so none is
 * written for it. */
struct bf_chain {
    uint8_t count; /* 0: no chain */
    struct {
        uint8_t channel;      /* enum bf_channel */
        uint32_t deadline_ms; /* from the hand-over; of the last step 0 */
    } step[BF_CHANNEL_COUNT];
};

/* What counts against the caps of a person once the plan is committed. */
struct bf_counts {
    uint8_t legs; /* channels that became BF_NOW by this plan for the first time */
};

struct bf_plan {
    struct bf_leg_plan leg[BF_CHANNEL_COUNT];
    struct bf_chain chain;
    bool in_inbox; /* the message is stored, whatever the other channels do */
    bool is_quiet; /* the frame says that it should not ring: nobody has quiet hours yet */
    struct bf_counts counts;
};

void bf_decide(const struct bf_facts *facts, struct bf_plan *ret);

/* Whether the plan for |channel| depends on the endpoints: the leg goes to them now, or it was
 * turned off for a reason that is shown in the status only if the person could have been reached.
 */
bool bf_needs_endpoints(const struct bf_facts *facts, const struct bf_plan *plan,
                        enum bf_channel channel);
/* Whether the event is older than rules.max_age_ms. */
bool bf_facts_is_stale(const struct bf_facts *facts);
/* Whether channels other than in-app are used only if the person does not take the message in-app:
 * because no channel was named, or because the person's subscription or the order of channels says
 * so. */
bool bf_follows_inapp(const struct bf_facts *facts);
