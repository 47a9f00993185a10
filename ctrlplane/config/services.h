/*
 * What main opens, in this order, and hands to the API and the admin port. Each field is valid from
 * the start of its service until all servers have stopped.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct bf_conf;
struct bf_store;
struct bf_log;
struct bf_blog;
struct bf_core;
struct bf_vault;
struct bf_channels;

struct bf_services {
    const char *config_path;          /* NULL: started without one */
    const struct bf_conf *first_conf; /* of the start: still in force where a restart is needed */
    /* Rises when API keys were changed in the store, so that they are read again. */
    _Atomic uint32_t keys_changed;
    _Atomic(const struct bf_conf *) conf; /* swapped by reload; old ones are kept (few, small) */
    struct bf_store *store;
    struct bf_log *log;
    struct bf_blog *blog;
    struct bf_core *core;
    struct bf_channels *channels; /* those that go out by providers */
    const struct bf_vault *vault; /* seals device tokens (crypto/vault.h) */
};

/* Reloads configuration: load, check, swap, hand to the core. Returns 0, or an error and one line
 * in |err|; nothing changed then. Any thread (serialised inside). */
int bf_services_reload(struct bf_services *services, char *err, unsigned long err_len);
