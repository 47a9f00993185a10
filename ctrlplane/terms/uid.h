/* Who a person is: the user's id inside a tenant. Types only. */
#pragma once

#include "belfry/base/cursor.h"

/* Both parts as they are ("" = default tenant), borrowed from whoever made it. */
struct bf_uid {
    struct bf_bytes tenant;
    struct bf_bytes user;
};
