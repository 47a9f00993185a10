/*
 * Upgrade request parser on any bytes: results stay inside the input, every prefix gives "more" or
 * the whole input's verdict, and whatever is taken can be answered. A request for events is read
 * further: its id, if it is one, is written as it came.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <string.h>

#include "proto/http1/upgrade.h"
#include "session/sse_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct bf_bytes b, const char *buf, size_t len)
{
    if (b.len > 0 && (b.at < buf || b.at + b.len > buf + len))
        abort();
}

static void events(const struct bf_upgrade *up)
{
    static struct bf_sse_request request;
    const char *why;
    char id[BF_SSE_ID_BYTES_MAX], again[BF_SSE_ID_BYTES_MAX];
    struct bf_sse_id back;
    if (bf_sse_request_read(up, &request, &why) != 0 || !request.msg.has_resume)
        return;
    size_t n = bf_sse_id_write(&request.resume, id);
    if (n >= sizeof(id) || bf_sse_id_parse((struct bf_bytes){.at = id, .len = n}, &back) != 0 ||
        bf_sse_id_write(&back, again) != n || memcmp(id, again, n) != 0)
        abort();
}

static void answer(const struct bf_upgrade *up, int rc)
{
    char out[BF_UPGRADE_RESPONSE_BYTES_MAX];
    size_t n = rc > 0 && up->is_upgrade ? bf_upgrade_accept(up, true, out)
                                        : bf_upgrade_refuse(rc < 0 ? -rc : 426, "no", out);
    if (n == 0 || n >= sizeof(out))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *buf = (const char *)data;
    struct bf_upgrade up, part;
    int rc = bf_upgrade_parse(buf, size, &up);
    if (rc > 0) {
        inside(up.path, buf, size);
        inside(up.query, buf, size);
        inside(up.key, buf, size);
        inside(up.origin, buf, size);
        inside(up.bearer, buf, size);
        inside(up.host, buf, size);
        inside(up.last_event_id, buf, size);
        if (up.is_events)
            events(&up);
    }
    if (rc != 0)
        answer(&up, rc);
    size_t step = size / 64 + 1;
    for (size_t n = 0; n < size; n += step) {
        int early = bf_upgrade_parse(buf, n, &part);
        if (early != 0 && early != rc)
            abort();
    }
    return 0;
}
