/*
 * What `belfryctl config check` (it asks belfry-ctrlplane --check) checks beside loading the file:
 * keys and certificates that cannot be used, directories that cannot be written to, values that
 * contradict each other or that a push service would refuse. Reads files; leaves nothing on the
 * disk.
 */
#pragma once

#include <stdbool.h>

struct bf_conf;

/* A fault keeps the node from doing what the file says. A note points at something that may not be
 * intended. */
typedef void (*bf_config_finding_fn)(void *arg, bool is_fault, const char *text);

/* Reports every finding as one line. Returns the number of faults. */
unsigned bf_config_check(const struct bf_conf *conf, bf_config_finding_fn each, void *arg);

/* What push services refuse a VAPID subject for (RFC 8292 2.1; Apple: BadJwtToken); NULL: nothing.
 */
const char *bf_vapid_subject_fault(const char *subject);
