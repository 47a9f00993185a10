/*
 * Every table of the store on the engine that keeps columns: what the tables' files write is what
 * the descriptions say, and none of them needs RocksDB.
 */
#include "memory_engine.h"

#define STORE_OPEN memory_store_open
#include "../test_store.c"
