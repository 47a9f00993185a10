/*
 * Idempotency keys whose first request is still running (ING-5, DESIGN 4.16). They are kept in
 * memory only, because a running request ends with the process; durable answers are rows of the
 * log. Any server thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

struct bf_idem_set;

/* Lives in the request while it runs. */
struct bf_idem_mark {
    uint8_t key[16]; /* hash of the joined key */
    struct bf_idem_mark *next;
};

struct bf_idem_set *bf_idem_set_create(void);
void bf_idem_set_destroy(struct bf_idem_set *set); /* NULL is fine */
/* False: a request with this key runs already (|mark| is not taken). */
bool bf_idem_begin(struct bf_idem_set *set, struct bf_idem_mark *mark, struct bf_bytes key);
void bf_idem_end(struct bf_idem_set *set, struct bf_idem_mark *mark);
