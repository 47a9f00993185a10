/* The compiled form of preferences, between the two files that know it. */
#pragma once

#include "prefs/prefs.h"

/* What a category or type says about each channel: two masks, so that a channel about which nothing
 * is said is decided at the next level. */
struct choice {
    uint8_t said;
    uint8_t on;
};

/* One named row; the names are stored after the rows. */
struct entry {
    uint32_t name_at;
    uint16_t name_len;
    struct choice choice; /* of a topic: unused, being listed is being muted */
};

struct bf_prefs {
    bool opt_out;
    struct choice channels;
    uint16_t category_count, type_count, topic_count;
    const char *names;
    struct entry entries[]; /* categories, types, muted topics; each part sorted by name */
};
