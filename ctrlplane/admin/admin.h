/* Admin port: /metrics, /healthz, /readyz, and the calls belfryctl makes (/admin/...). Local by
 * default, and with a credential (credential.h). */
#pragma once

#include <stddef.h>

struct bf_services;
struct bf_admin;

int bf_admin_start(struct bf_services *services, int listen_fd, struct bf_admin **ret, char *err,
                   size_t err_len);
int bf_admin_port(const struct bf_admin *admin);
int bf_admin_fd(const struct bf_admin *admin);
/* Writes to the store when API keys were used last; see bf_auth_write_use. */
void bf_admin_write_key_use(struct bf_admin *admin);
void bf_admin_stop(struct bf_admin *admin);
