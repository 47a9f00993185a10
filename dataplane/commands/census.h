/* Census and drain: slow jobs over all connections, a slice a turn. Private to commands/. */
#pragma once

#include "commands/commands.h"

/* A census begins (again): first what is in the rings now is taken, then the answer. */
void bf_census_start(struct bf_commands *in, uint64_t ticket);
/* Returns true while there is more to do at once. */
bool bf_census_slice(struct bf_commands *in);
bool bf_drain_slice(struct bf_commands *in);
