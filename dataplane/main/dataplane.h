/* The dataplane with what only its own program says. See belfry/plane.h. */
#pragma once

struct bf_plane_args;

enum bf_dataplane_mode {
    BF_DATAPLANE_NORMAL = 0,
    BF_DATAPLANE_RAW = 1,  /* worker/raw.h */
    BF_DATAPLANE_ECHO = 2, /* worker/echo.h; a region of its own, nothing is announced */
};

int bf_dataplane_run_as(const struct bf_plane_args *args, enum bf_dataplane_mode mode);
