/* The one instance of the control process's counters. */
#include "stats/metrics.h"

struct bf_ctrl_stats bf_ctrl_stats;
