/* Delivery status of one event as JSON (ING-9): for the API and for `belfryctl trace`. */
#pragma once

#include "json/out.h"
#include "store/store.h"

/* Appends the object to |o|. |tenant|.at NULL: whatever tenant. Returns 0, BF_ERR_NOT_FOUND (also
 * for another tenant's event; |o| is then untouched), or a store error. Any thread. */
int bf_status_write(struct bf_store *store, const struct bf_id *event_id, struct bf_bytes tenant,
                    struct bf_out *o);
