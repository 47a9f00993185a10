/* Lanes by name; the lanes themselves are in belfry/base/limits.h, for both planes have them. */
#pragma once

#include "belfry/base/limits.h"

/* "critical", "normal", "bulk"; |lane| must be one of the three. Static text; any thread. */
const char *bf_lane_name(enum bf_lane lane);
