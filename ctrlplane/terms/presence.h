/* Whether a person is connected. Not known (after a start, a dead dataplane) is not offline. */
#pragma once

enum bf_presence { BF_PRESENCE_UNKNOWN = 0, BF_PRESENCE_OFFLINE = 1, BF_PRESENCE_ONLINE = 2 };
