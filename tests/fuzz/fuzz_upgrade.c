/*
 * Upgrade request parser on any bytes: views stay inside the input, every prefix gives "more" or
 * the whole input's verdict, and whatever is taken can be answered.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/http1/upgrade.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct bf_bytes b, const char *buf, size_t len)
{
    if (b.len > 0 && (b.at < buf || b.at + b.len > buf + len))
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
