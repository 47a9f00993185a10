/* Devices and the push queue on the engine that keeps columns. */
#include "memory_engine.h"

#define STORE_OPEN memory_store_open
#include "../test_legs.c"
