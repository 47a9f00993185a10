/* The store of this program: on RocksDB. */
#include "store/rocks/engine.h"

int bf_store_open(const struct bf_store_options *options, struct bf_store **ret, char *err,
                  size_t err_len)
{
    struct bf_engine *engine;
    int rc = bf_rocks_engine_open(options, &engine, err, err_len);
    return rc == 0 ? bf_store_open_on(engine, ret, err, err_len) : rc;
}
