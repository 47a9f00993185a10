/* The one instance of the control process's counters. */
#include "admin/metrics.h"

struct bf_ctrl_stats bf_ctrl_stats;
