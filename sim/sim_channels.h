/* APNs broadcast channels of this process: id, application, storage policy. Locked inside; any
 * thread. */
#pragma once

#include "sim_types.h"

#define SIM_CHANNELS_MAX     10000u /* Apple: per application; here over all of them */
#define SIM_CHANNEL_ID_BYTES 24u    /* 16 bytes in base64, with padding */

struct sim_channels;

struct sim_channels *sim_channels_create(void);
void sim_channels_destroy(struct sim_channels *t);

/* Makes a channel with id |raw| for |app|. False when the table is full. |out| gets the text id. */
bool sim_channels_add(struct sim_channels *t, struct sim_slice app, int policy,
                      const uint8_t raw[16], char out[SIM_CHANNEL_ID_BYTES + 1]);
/* Storage policy of a channel of |app|, or -1. */
int sim_channels_find(struct sim_channels *t, struct sim_slice app, struct sim_slice id);
bool sim_channels_remove(struct sim_channels *t, struct sim_slice app, struct sim_slice id);
/* Writes as many ids of |app| as fit, as the inside of a JSON array. Returns its bytes. */
size_t sim_channels_list(struct sim_channels *t, struct sim_slice app, char *out, size_t size);
