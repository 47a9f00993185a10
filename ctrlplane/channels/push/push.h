/*
 * The push channel: what the parts are, and how fan-out drives them. Nothing here holds a socket;
 * the dataplane sends (shm/push.h), a shard decides.
 *
 *   push_note      a notification for adapters, read from an event's fragment; targets (devices)
 *   push_request   note + target -> the record that goes into a command's block
 *   push_answer    receipt + body -> verdict: class, action, flags, first delay
 *   push_retry     when it is tried again; budget of retries
 *   push_breaker   circuit breaker of a pool           push_bucket  token bucket of a provider's
 * limit push_crypto    RFC 8291, signed tokens, the vault for device tokens
 *
 * One push, on the user's shard (all state of a pool, i.e. breaker, bucket, budget, lives in one
 * place: a shard has its share of a limit, limit / shards):
 *
 *   1. bf_push_note_open(&source, &note, why)           once an event and user
 *   2. for each device of the user that is not dead:
 *      a. pool = the app's pool; stopped, breaker closed to it (bf_breaker_try), bucket empty
 *         (bf_bucket_take): a row of the push queue, not before now + wait; the event settles.
 *      b. bf_push_request_build(&note, &target, ...)    refused: dead letter with |why|, status
 * failed c. block, BF_CMD_PUSH in the message's lane, push_id kept in a table {message id, device,
 * attempt, registered_ms, sent_ms}. No block, ring full: a row of the push queue, due at once.
 *   3. BF_RCPT_PUSH: bf_push_classify(&context, receipt, body, &verdict), then
 *      bf_breaker_note(pool, now, verdict.flags & BF_PUSH_F_FAULT)
 *      flags   FORGET_TOKEN  mark the device dead in the same batch; event on belfry.tokens
 *              CUT_RATE      bf_bucket_cut          RENEW, KEEP_TOKEN, STOP_POOL  tell push_creds
 *              SLOW_DEVICE   the device's next push not before now + delay_ms
 *      action  DONE          outcome `sent`, settle
 *              DROP          outcome `failed` + reason; CLASS_BAD and CLASS_AUTH: dead letter
 *              RETRY         bf_push_retry_at(..): 0 = expired (outcome `expired`), else a row due
 * then RETRY_ONCE    the same while attempts == 1, else as DROP HOLD          a row due in
 * delay_ms; attempts are not counted
 *   4. A row that is due passes opt-out, erasure, expiry again (DESIGN 4.3), takes from the retry
 * budget (bf_push_budget_take; empty: due a second later), then goes through 2a to 2c with
 * is_retry. A newer row of the same device and collapse key replaces an older one.
 *   5. An acknowledgement cancels: rows of the message and the user are deleted; what is in flight
 * is let be.
 *
 * The message id is the same on every attempt (apns-id), so that a provider or an app can recognise
 * a double after BF_PUSH_F_MAY_DOUBLE; a new id needs a new redrive number (DESIGN 4.4).
 */
#pragma once

#include "channels/push/push_answer.h"
#include "channels/push/push_breaker.h"
#include "channels/push/push_bucket.h"
#include "channels/push/push_crypto.h"
#include "channels/push/push_device.h"
#include "channels/push/push_note.h"
#include "channels/push/push_request.h"
#include "channels/push/push_retry.h"
