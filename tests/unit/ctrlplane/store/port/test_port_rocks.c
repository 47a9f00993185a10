/* The RocksDB engine does what every engine of the store has to do. */
#include "run.h"

#include "store/rocks/engine.h"

TestSuite(port_rocks, .timeout = 300);

Test(port_rocks, conforms)
{
    run_seeds("rocks", bf_rocks_engine_open, 3, 2500);
}
