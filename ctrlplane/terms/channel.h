/* Channels: the ways to a person. Types and names only. */
#pragma once

#include <stdint.h>

/* Numbers are stored (outcomes, dead letters, subscriptions' masks): never change or reuse one. */
enum bf_channel {
    BF_CHANNEL_INAPP = 0,
    BF_CHANNEL_PUSH = 1,
    BF_CHANNEL_EMAIL = 2,
    BF_CHANNEL_SMS = 3,
    BF_CHANNEL_WEBHOOK = 4,
    BF_CHANNEL_COUNT
};

/* "inapp", "push", ...; |channel| must be one of the above. Static text; any thread. */
const char *bf_channel_name(enum bf_channel channel);
