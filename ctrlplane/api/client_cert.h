/*
 * Producers known by certificate (api.tls.clients): a name of the verified certificate stands for
 * one API key, with that key's tenant, scopes, rate and revocation. Rights never come from the
 * certificate itself, so even if a CA signs too many certificates nobody gets a right that the
 * operator has not configured. Any server thread.
 */
#pragma once

#include "http/http.h"
#include "store/store.h"

/* SHA-256 of a key's text, as in its row. */
#define BF_API_KEY_HASH_BYTES sizeof(((struct bf_api_key_row *)0)->hash)

/* The hash of the API key that the request's client certificate stands for; false: for none. */
bool bf_client_cert_key(struct bf_store *store, const struct bf_conf *conf, struct bf_request *r,
                        uint8_t hash[BF_API_KEY_HASH_BYTES]);
