/* HTTP/1.1: see sim_h1.h. */
#include "sim_h1.h"

#include <ctype.h>
#include <stdio.h>

#include "sim_text.h"

static struct sim_slice trim(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (struct sim_slice){p, (uint32_t)(end - p)};
}

static bool request_line(struct sim_stream *s, const char *p, const char *end)
{
    const char *sp1 = memchr(p, ' ', (size_t)(end - p));
    const char *sp2 = sp1 ? memchr(sp1 + 1, ' ', (size_t)(end - sp1 - 1)) : NULL;
    if (!sp2 || sp1 == p || end - sp2 != 9 || memcmp(sp2, " HTTP/1.1", 9) != 0)
        return false;
    sim_stream_field(s, SIM_F_METHOD, (struct sim_slice){p, (uint32_t)(sp1 - p)});
    sim_stream_field(s, SIM_F_PATH, (struct sim_slice){sp1 + 1, (uint32_t)(sp2 - sp1 - 1)});
    return true;
}

/* One field line. False when it has no name. */
static bool field_line(struct sim_stream *s, const char *p, const char *end, uint64_t *length,
                       bool *chunked)
{
    char lower[64];
    const char *colon = memchr(p, ':', (size_t)(end - p));
    if (!colon || colon == p)
        return false;
    uint32_t n = (uint32_t)(colon - p);
    if (n > sizeof(lower))
        return true; /* nobody looks at a name that long */
    for (uint32_t i = 0; i < n; i++)
        lower[i] = (char)tolower((unsigned char)p[i]);
    struct sim_slice name = {lower, n}, value = trim(colon + 1, end);
    if (sim_slice_is(name, "content-length"))
        return sim_text_number(value, UINT32_MAX, length);
    if (sim_slice_is(name, "transfer-encoding"))
        *chunked = true;
    int tag = sim_stream_tag(name);
    if (tag >= 0)
        sim_stream_field(s, (enum sim_field)tag, value);
    return true;
}

long sim_h1_read(struct sim_stream_pool *p, struct sim_stream *s, const char *in, size_t bytes,
                 uint16_t *ret_status)
{
    const char *end = memmem(in, bytes, "\r\n\r\n", 4);
    uint64_t length = 0;
    bool chunked = false;
    *ret_status = 400;
    if (!end) {
        *ret_status = 431;
        return bytes > SIM_H1_HEAD_BYTES_MAX ? -1 : 0;
    }
    const char *line = in, *stop = memmem(in, bytes, "\r\n", 2);
    if (!request_line(s, line, stop))
        return -1;
    while (stop < end) {
        line = stop + 2;
        stop = memmem(line, (size_t)(in + bytes - line), "\r\n", 2);
        if (!field_line(s, line, stop, &length, &chunked))
            return -1;
    }
    *ret_status = chunked ? 411 : 413;
    if (chunked || length > SIM_BODY_BYTES_MAX * 4)
        return -1;
    size_t head = (size_t)(end + 4 - in);
    if (bytes - head < length)
        return 0;
    sim_stream_body(p, s, (const uint8_t *)end + 4, length);
    return (long)(head + length);
}

static const char *phrase(uint16_t status)
{
    return status < 300 ? "OK" : status < 500 ? "Refused" : "Failed";
}

size_t sim_h1_write(const struct sim_answer *a, bool close, char *out, size_t size)
{
    int n = snprintf(out, size, "HTTP/1.1 %u %s\r\ncontent-length: %u\r\n", a->status,
                     phrase(a->status), a->body_bytes);
    size_t at = (size_t)n;
    if (a->content_type)
        at += (size_t)snprintf(out + at, size - at, "content-type: %s\r\n", a->content_type);
    if (a->retry_after_s)
        at += (size_t)snprintf(out + at, size - at, "retry-after: %u\r\n", a->retry_after_s);
    for (uint32_t i = 0; i < a->fields_count && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s: %s\r\n", a->fields[i].name,
                               a->fields[i].value);
    if (at + 32 + a->body_bytes > size)
        return 0;
    at += (size_t)snprintf(out + at, size - at, "%s\r\n", close ? "connection: close\r\n" : "");
    memcpy(out + at, a->body, a->body_bytes);
    return at + a->body_bytes;
}
