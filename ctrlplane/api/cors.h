/* Calls from web pages of other origins; see cors.c. Any server thread. */
#pragma once

#include "http/http.h"

/* Adds what a page needs to read the answer, if the route is for users and the origin is listed.
 * Again is harmless. */
void bf_cors_admit(struct bf_request *r);
/* Answers a preflight that may go on; else sets nothing. */
void bf_cors_preflight(struct bf_request *r, const char *path);
