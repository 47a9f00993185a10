/*
 * The configuration a dataplane starts with, in the form of a snapshot (shm/snapshot.h): sockets
 * can authenticate before any ctrlplane has come. Main thread, at start.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct bf_conf;

/* 0 with *ret_content (malloc, the caller frees it), or negative. */
int bf_first_config(const struct bf_conf *conf, uint8_t **ret_content, size_t *ret_len);
