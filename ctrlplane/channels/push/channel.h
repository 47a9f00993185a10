/*
 * The push channel: what the parts are. Nothing here holds a socket; the dataplane sends
 * (shm/push_wire.h).
 *
 *   push.c         the channel's row (channels/channel.h); joins the parts
 *   push_note      a notification for adapters, read from an event's fragment; targets (devices)
 *   push_request   note + target -> the record that goes into a command's block
 *   push_answer    receipt + body -> verdict
 *   push_creds     apps, credentials, tokens, pools: their records go into the snapshot
 *                  (main/region_attach.c); push_tokens and push_fetch are its parts
 *   push_device    a row of the registry <-> a target; token events
 *   crypto/        RFC 8291 (webpush), signed tokens (sign), the vault for device tokens
 *   store/devices.h   who has which devices
 *
 * The message id is the same on every attempt (apns-id), so that a provider or an app can recognise
 * a double after BF_VERDICT_MAY_DOUBLE; a new id needs a new redrive number (DESIGN 4.4).
 */
#pragma once

#include "channels/channel.h"
#include "channels/push/push_answer.h"
#include "channels/push/push_creds.h"
#include "crypto/sign.h"
#include "crypto/vault.h"
#include "crypto/webpush.h"
#include "channels/push/push_device.h"
#include "channels/push/push_note.h"
#include "channels/push/push_request.h"

extern const struct bf_channel_ops bf_push_ops;
