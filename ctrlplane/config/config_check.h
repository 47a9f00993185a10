/*
 * What `belfryctl config check` (it asks belfry-ctrlplane --check) looks at beyond the loading of
 * the file: keys and certificates that nothing can use, directories that cannot be written to,
 * values that contradict each other or that a service out there refuses. Reads files, makes nothing
 * that stays.
 */
#pragma once

#include <stdbool.h>

struct bf_conf;

/* A fault keeps the node from doing what the file says; a note is for whoever did not mean it so.
 */
typedef void (*bf_config_finding_fn)(void *arg, bool is_fault, const char *text);

/* Every finding, one line each; gives the number of faults. */
unsigned bf_config_check(const struct bf_conf *conf, bf_config_finding_fn each, void *arg);

/* What push services refuse a VAPID subject for (RFC 8292 2.1; Apple: BadJwtToken); NULL: nothing.
 */
const char *bf_vapid_subject_fault(const char *subject);
