/*
 * Preferences (PRF-1) compiled to a compact immutable form, and the decision over them. Pure. The
 * stored JSON is the truth; this is what the fan-out looks at for every delivery.
 */
#pragma once

#include <stdbool.h>

#include "belfry/base/cursor.h"
#include "ingest/event.h"

struct bf_prefs; /* one allocation; immutable */

enum bf_suppress {
    BF_PASS = 0,
    BF_SUPPRESS_OPT_OUT = 1,
    BF_SUPPRESS_CHANNEL = 2,
    BF_SUPPRESS_CATEGORY = 3,
    BF_SUPPRESS_TYPE = 4,
    BF_SUPPRESS_TOPIC_MUTE = 5,
    BF_SUPPRESS_SUBSCRIPTION = 6,
    BF_SUPPRESS_EXPIRED = 7,
    BF_SUPPRESS_UNKNOWN_USER = 8,
    BF_SUPPRESS_DUPLICATE = 9,
    BF_SUPPRESS_OFFLINE = 10, /* transient, nobody there */
    BF_SUPPRESS_COUNT
};

const char *bf_suppress_name(enum bf_suppress reason); /* "opt_out", ... */

/*
 * Checks and compiles a PUT body {opt_out, channels:{inapp:bool,..}, channel_order:[..],
 * types:{T:{channel:bool,..}|bool}, categories:{C:{..}|bool}, topics:{T:bool|"mute"}, quiet_hours, digest}.
 * quiet_hours and digest are refused by name (400) until they are done. Returns 0 and *ret (caller's), or
 * BF_ERR_MALFORMED with *problem. *ret_stored, if not NULL, receives malloc'ed canonical JSON.
 */
int bf_prefs_compile(struct bf_bytes json, struct bf_prefs **ret, char **ret_stored,
                     struct bf_problem *problem);
void bf_prefs_free(struct bf_prefs *prefs); /* NULL is fine */
bool bf_prefs_is_opted_out(const struct bf_prefs *prefs);

/* Decision for one channel. |prefs| NULL = defaults (all on). Level: type > category > channel; a
 * topic mute covers every channel; opt_out everything. */
enum bf_suppress bf_prefs_decide(const struct bf_prefs *prefs, const struct bf_event *event,
                                 enum bf_channel channel);
