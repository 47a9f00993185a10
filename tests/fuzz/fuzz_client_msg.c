/* Client frames on any text: results stay inside the pool, and what is echoed makes an answer. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "session/client_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t pool[BF_CLIENT_MSG_POOL_BYTES];

static void inside(struct bf_bytes b)
{
    const char *from = (const char *)pool;
    if (b.len > 0 && (b.at < from || b.at + b.len > from + sizeof(pool)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bf_client_msg msg;
    const char *code = NULL, *why = NULL;
    char out[512];
    struct bf_bytes text = {.at = (const char *)data, .len = size};
    int rc = bf_client_msg_parse(pool, sizeof(pool), text, &msg, &code, &why);
    inside(msg.ref);
    if (rc != 0) {
        if (bf_msg_error(out, sizeof(out), code, why, false, msg.ref) == 0)
            abort();
        return 0;
    }
    inside(msg.token);
    inside(msg.device);
    inside(msg.id);
    inside(msg.topic);
    inside(msg.resume_epoch);
    for (uint32_t i = 0; i < msg.topic_count; i++)
        inside(msg.topics[i]);
    if (msg.kind >= BF_CM_KIND_COUNT || msg.lane >= BF_LANE_COUNT ||
        bf_msg_ok(out, sizeof(out), msg.ref) == 0)
        abort();
    return 0;
}
