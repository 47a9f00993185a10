/* Whether a person is connected, as far as this process knows. Types only. */
#pragma once

/* Nothing that depends on presence is decided until it is known (DESIGN 4.8): after an attach it is
 * unknown until every worker has answered the census. */
enum bf_presence { BF_PRESENCE_UNKNOWN = 0, BF_PRESENCE_OFFLINE = 1, BF_PRESENCE_ONLINE = 2 };
