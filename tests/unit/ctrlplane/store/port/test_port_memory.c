/*
 * An engine that keeps columns, not bytes, does what every engine of the store has to do: so the
 * descriptions of the tables are enough for one with typed columns.
 */
#include "run.h"

#include "memory_engine.h"

TestSuite(port_memory, .timeout = 300);

Test(port_memory, conforms)
{
    run_seeds("memory", memory_engine_open, 5, 4000);
    memory_forget();
}

/* Rows of every table, with every column at every of its sizes, in the end the same bytes. */
Test(port_memory, rows_split_and_join)
{
    struct run *r = calloc(1, sizeof(*r));
    uint8_t room[ROW_BYTES_MAX], key_again[ROW_BYTES_MAX], value_again[ROW_BYTES_MAX];
    r->random = first_seed();
    for (unsigned i = 0; i < 100000; i++) {
        struct bf_key key;
        struct cells cells, more;
        uint64_t expires_ms = 0;
        uint8_t table = random_table(r);
        random_key(r, table, &key);
        struct bf_bytes value = random_value(r, table, room);
        struct bf_writer k = {.buf = key_again, .cap = sizeof(key_again)};
        struct bf_writer v = {.buf = value_again, .cap = sizeof(value_again)};
        cr_assert(split_key(bytes_of(&key), &cells), "%s", bf_tables[table].name);
        cr_assert(split_value(table, value, &more, &expires_ms), "%s", bf_tables[table].name);
        join_key(table, &cells, &k);
        join_value(table, &more, expires_ms, &v);
        cr_assert(k.len == key.len && memcmp(k.buf, key.at, k.len) == 0);
        cr_assert(v.len == value.len && memcmp(v.buf, value.at, v.len) == 0);
        cells_free(&cells);
        cells_free(&more);
    }
    free(r);
}
