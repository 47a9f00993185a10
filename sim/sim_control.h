/*
 * The control port, on loopback: HTTP/1.1, one request a connection, answered by one thread.
 * GET /stats, GET /record[?tail=N], GET|POST|DELETE /faults. docs/SIM.md has examples.
 */
#pragma once

#include "sim.h"

struct sim_control;

/* Starts the thread; sim->control_port 0 is chosen and written back. NULL after a line on stderr.
 */
struct sim_control *sim_control_create(struct sim *sim);
/* After sim->stop is set. */
void sim_control_destroy(struct sim_control *c);
