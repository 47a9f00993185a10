/*
 * A node under test, started by `scripts/dev up` (DESIGN 6) in a state directory of its own. Calls
 * block until the node is ready or gone. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PF_PATH_BYTES   512u
#define PF_SECRET_BYTES 256u
/* Output of scripts/dev, and answers of the admin port. */
#define PF_TEXT_BYTES (256u * 1024u)

struct pf_node {
    char state[PF_PATH_BYTES];
    char api_host[64], ws_host[64], admin_host[64];
    uint16_t api_port, ws_port, admin_port;
    pid_t dataplane, ctrlplane; /* the same process where the machine has no hugepages */
    char api_key[PF_SECRET_BYTES];
    char kafka[128]; /* bootstrap address; "" without Kafka */
    char jwt_secret[PF_SECRET_BYTES];
    size_t jwt_secret_len;
};

/* Root of the source tree: $BELFRY_ROOT, or two folders above the program (build/<preset>/). */
const char *pf_root(void);

/*
 * Starts a node from YAML text (flat "a.b: c" is not YAML: give nested maps); |engine| may be NULL.
 * Ends the program when it does not start. pf_node_down stops it and removes its state; at exit of
 * the program it is done by itself.
 */
void pf_node_up(struct pf_node *node, const char *yaml, const char *engine);
void pf_node_down(struct pf_node *node);

/* Starts a side ("ctrlplane", "dataplane") again, dead or alive, and waits until the node is ready.
 * Returns the seconds until then; ends the program when it does not come back. */
double pf_node_restart(struct pf_node *node, const char *side);

/* Runs `belfryctl <arguments>` for this node. Returns whether it succeeded. */
bool pf_node_ctl(const struct pf_node *node, const char *arguments);

/* Value of a counter on the admin port's /metrics, summed over label sets; -1 when it is not there.
 */
double pf_node_metric(const struct pf_node *node, const char *name);

/* One API call with the node's key over a kept connection. Returns the HTTP status, or -1. |answer|
 * (PF_TEXT_BYTES) may be NULL. */
int pf_node_api(const struct pf_node *node, const char *method, const char *path, const char *body,
                char *answer);

/* Registers users prefix<first> .. prefix<first+count-1>, by bulk import. Ends the program on
 * failure. */
void pf_node_users(const struct pf_node *node, const char *prefix, uint32_t first, uint32_t count);
