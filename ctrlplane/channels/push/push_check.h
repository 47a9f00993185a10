/*
 * What would fail at each push of an event is refused when it comes in: its requests are built here
 * on trial, by the builders that will build them, without a device. Bad overrides; keys that FCM
 * keeps for itself; a push that nobody would see; a payload that is too large for every provider
 * that its people have. HTTP answers with the problem, a record of Kafka becomes a dead letter with
 * it. Any thread.
 */
#pragma once

#include "belfry/conf/conf.h"
#include "ingest/event.h"

struct bf_store;

/* 0, or BF_ERR_MALFORMED / BF_ERR_TOO_LARGE with *problem. Costs a look at the fragment for most
 * events: only one with data, overrides or a large text is built. |store|: whose devices the
 * recipients have. */
int bf_push_check_event(const struct bf_conf *conf, struct bf_store *store,
                        const struct bf_event *event, struct bf_problem *problem);
