/*
 * Device rows of a former version, or of another push.tenant_tokens, brought to the form that this
 * process compares: tokens in their one form (push_canon.h), hashed as it would hash them. Runs at
 * start, before any shard; once, because a value in the store says which form the rows have. A kill
 * in between is nothing: each row is one batch, the value is written last, and a row that has its
 * form already is stepped over.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct bf_store;
struct bf_vault;

struct bf_push_migrated {
    uint64_t rows;       /* looked at; 0: the store has the form already */
    uint64_t changed;    /* written again */
    uint64_t merged;     /* one phone in two spellings: the one registered last has stayed */
    uint64_t unreadable; /* sealed with another key: left as they are */
};

/* 0, or what the store said. */
int bf_push_devices_migrate(struct bf_store *store, const struct bf_vault *vault, bool is_tenants,
                            struct bf_push_migrated *ret);
