/* See channel.h. */
#include "channels/channel.h"

void bf_leg_message_id(struct bf_leg_row *row)
{
    struct bf_bytes endpoint = {(const char *)row->endpoint_id.bytes,
                                row->kind == BF_LEG_SEND ? sizeof(row->endpoint_id.bytes) : 0};
    bf_message_id(&row->event_id, row->uid.tenant, row->uid.user, (enum bf_channel)row->channel,
                  endpoint, row->redrive, &row->message_id);
}
