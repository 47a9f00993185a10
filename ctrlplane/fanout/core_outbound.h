/* What the rest of the control process asks about pools of providers. See core.h for threads. */
#pragma once

#include "fanout/core.h"
#include "outbound/reports.h"
#include "outbound/totals.h"

/* As bf_pool_reports_get of the node's reports. */
bool bf_core_pool_report(struct bf_core *core, uint32_t pool, struct bf_pool_report *ret);
/* Of channels whose answers come by no ring (bf_channel_env.answered); |core| is the argument. */
void bf_core_answered(void *core, const struct bf_provider_answer *answer);
/* Asks every shard in turn; waits as bf_core_run_on. Any thread but a shard's. */
int bf_core_pool_totals(struct bf_core *core, struct bf_pool_totals *ret);
