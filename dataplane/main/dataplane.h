/* The dataplane with what only its own program says. See belfry/plane.h. */
#pragma once

#include <stdbool.h>

struct bf_plane_args;

/* As bf_dataplane_run; |raw|: worker/raw.h. */
int bf_dataplane_run_as(const struct bf_plane_args *args, bool raw);
