/*
 * Preferences (PRF-1) in a compact immutable form, which the fan-out looks at for every delivery,
 * and the decision by them. Pure. The stored JSON is what counts; this form is made from it.
 */
#pragma once

#include <stdbool.h>

#include "belfry/base/cursor.h"
#include "ingest/event.h"
#include "terms/reason.h"

struct bf_prefs; /* one allocation; immutable */

/*
 * Checks and compiles a PUT body {opt_out, channels:{inapp:bool,..}, channel_order:[..],
 * types:{T:{channel:bool,..}|bool}, categories:{C:{..}|bool}, topics:{T:bool|"mute"}, quiet_hours,
 * digest}. quiet_hours and digest are refused by name (400) until they are done. Returns 0 and *ret
 * (caller's), or BF_ERR_MALFORMED with *problem. *ret_stored, if not NULL, receives malloc'ed
 * canonical JSON.
 */
int bf_prefs_compile(struct bf_bytes json, struct bf_prefs **ret, char **ret_stored,
                     struct bf_problem *problem);
void bf_prefs_free(struct bf_prefs *prefs); /* NULL is fine */
bool bf_prefs_is_opted_out(const struct bf_prefs *prefs);

/* What they say of one channel of an event about |type|, |category| and |topic| ("" = none): the
 * reason why not, or BF_REASON_NONE. |prefs| NULL = defaults (all on). Level: type > category >
 * channel; a topic mute covers every channel; opt_out everything. */
enum bf_reason bf_prefs_decide(const struct bf_prefs *prefs, struct bf_bytes type,
                               struct bf_bytes category, struct bf_bytes topic,
                               enum bf_channel channel);
