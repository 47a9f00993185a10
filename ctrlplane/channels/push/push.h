/* clang-format off */
/*
 * The push channel: what the parts are, and how fan-out drives them. Nothing here holds a socket; the
 * dataplane sends (shm/push.h), a shard decides.
 *
 *   push_note      a notification for adapters, read from an event's fragment; targets (devices)
 *   push_request   note + target -> the record that goes into a command's block
 *   push_answer    receipt + body -> verdict: class, action, flags, first delay
 *   push_retry     when it is tried again; budget of retries
 *   push_breaker   circuit breaker of a pool
 *   push_bucket    token bucket of a provider's limit
 *   push_creds     apps, credentials, tokens, pools: their records go into the snapshot (main/region_attach.c);
 *                  push_tokens and push_fetch are its parts
 *   push_device    a row of the registry <-> a target; token events
 *   push_crypto    RFC 8291, signed tokens, the vault for device tokens
 *   store/devices.h      who has which devices
 *   store/legs.h   what waits for its time
 *
 * One push, on the user's shard. State of a pool (breaker, bucket, budget) is the shard's own; a limit is shared
 * evenly, limit / shards.
 *
 *   1. bf_push_note_open(&source, &note, why)           once an event and user
 *   2. for each live device of the user (bf_store_walk_devices, bf_push_device_open):
 *      a. bf_push_creds_find(app, kind, authority): the pool; target.app_topic = info.topic. Not ready or stopped,
 *         breaker open (bf_breaker_try), bucket empty (bf_bucket_take): a row of the push queue, not before
 *         now + wait; the event settles.
 *      b. bf_push_request_build(&note, &target, ...)    refused: dead letter with |why|, status failed
 *      c. block, BF_CMD_PUSH in the message's lane; push_id kept in a table {message id, device, token hash,
 *         attempt, registered_ms}. No block, ring full: a row of the push queue, due at once.
 *   3. BF_RCPT_PUSH: bf_push_classify(&context, receipt, body, &verdict), then
 *      bf_breaker_note(pool's, now, verdict.flags & BF_PUSH_F_FAULT).
 *      flags   FORGET_TOKEN  bf_batch_mark_device_dead in the same batch; bf_push_device_event "dead" to
 *                            bf_log_token_event
 *              CUT_RATE      bf_bucket_cut
 *              RENEW, KEEP_TOKEN   bf_push_creds_renew, bf_push_creds_keep
 *              STOP_POOL     hold the pool's pushes until its credential changes (another pool id) or an hour passed
 *              SLOW_DEVICE   the device's next push not before now + delay_ms
 *      action  DONE          outcome `sent`, settle
 *              DROP          outcome `failed` + reason; classes BAD and AUTH: dead letter
 *              RETRY         bf_push_retry_at(..): 0 = outcome `expired`, else a row due then
 *              RETRY_ONCE    the same while attempts == 1, else as DROP
 *              HOLD          a row due in delay_ms; attempts are not counted
 *   4. A row that is due (bf_store_walk_due) passes opt-out, erasure, expiry again (DESIGN 4.3), takes from the
 *      retry budget (bf_push_budget_take; empty: due a second later), then goes through 2a to 2c with is_retry.
 *      bf_batch_put_leg replaces an older row of the same device and collapse key.
 *   5. An acknowledgement cancels: bf_batch_cancel_legs(user, event); what is in flight is let be.
 *
 * The message id is the same on every attempt (apns-id), so that a provider or an app can recognise a double after
 * BF_PUSH_F_MAY_DOUBLE; a new id needs a new redrive number (DESIGN 4.4).
 */
/* clang-format on */
#pragma once

#include "channels/push/push_answer.h"
#include "channels/push/push_creds.h"
#include "channels/push/push_crypto.h"
#include "channels/push/push_device.h"
#include "channels/push/push_note.h"
#include "channels/push/push_request.h"
