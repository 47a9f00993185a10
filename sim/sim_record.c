/* The record: see sim_record.h. */
#include "sim_record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "sim_provider.h"

#define OUT_BYTES     (1u << 20)
#define LINE_BYTES    (160u * 1024) /* an entry with a 16 KB payload, every byte escaped to six */
#define IDLE_PAUSE_NS 1000000       /* the writer looks again after a millisecond */

enum text {
    T_TOKEN,
    T_ID,
    T_TOPIC,
    T_TYPE,
    T_PRIORITY,
    T_EXPIRATION,
    T_COLLAPSE,
    T_REASON,
    T_PAYLOAD,
    T_COUNT
};

static const char *const text_names[T_COUNT] = {
    "token", "id", "topic", "type", "priority", "expiration", "collapse", "reason", "payload"};

struct head {
    uint32_t bytes; /* of the whole entry, a multiple of 8; 0 = go on at the ring's beginning */
    uint32_t provider;
    int64_t time_us;
    uint64_t conn, latency_us, hash, body_bytes;
    int32_t stream;
    uint16_t status, pad;
    uint32_t text_bytes[T_COUNT], more_pad;
};

_Static_assert(sizeof(struct head) % 8 == 0, "entries are multiples of 8");

struct ring {
    _Alignas(64) _Atomic uint64_t
        head; /* bytes put; the worker writes it, release: the entry is complete */
    _Alignas(64) _Atomic uint64_t
        tail; /* bytes taken; the writer writes it, release: the place is free */
    _Alignas(64) _Atomic uint64_t waits;
    uint8_t *bytes;
};

struct sim_record {
    int fd;
    bool with_payload;
    char path[512];
    unsigned rings_count;
    struct ring *rings;
    char *out, *line;
    size_t out_bytes;
    pthread_t thread;
    _Atomic uint64_t lines; /* written; relaxed but for flush, which orders by the tails */
    _Atomic bool stop;
};

/* ---- worker side ---- */

static void pause_ns(long ns)
{
    nanosleep(&(struct timespec){0, ns}, NULL);
}

/* Place for |bytes| in one piece; waits for the writer when the ring is full. */
static uint8_t *reserve(struct ring *r, uint64_t *head, uint32_t bytes)
{
    for (unsigned waits = 0;; waits++) {
        uint64_t at = *head % SIM_RECORD_RING_BYTES, to_end = SIM_RECORD_RING_BYTES - at;
        uint64_t need = to_end < bytes ? to_end + bytes : bytes;
        /* acquire: pairs with the writer's release of tail, so that its reads of the place are over
         */
        uint64_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
        if (*head + need - tail <= SIM_RECORD_RING_BYTES) {
            if (to_end >= bytes)
                return r->bytes + at;
            memset(r->bytes + at, 0, 4); /* skip mark; at is a multiple of 8 */
            *head += to_end;
            return r->bytes;
        }
        if (waits == 0)
            atomic_fetch_add_explicit(&r->waits, 1, memory_order_relaxed); /* a statistic */
        pause_ns(50000);
    }
}

static void collect(const struct sim_record *r, const struct sim_entry *e,
                    struct sim_slice text[T_COUNT])
{
    const struct sim_request *q = e->q;
    memset(text, 0, sizeof(struct sim_slice) * T_COUNT);
    text[T_TYPE] = q->field[e->provider == SIM_WEBPUSH ? SIM_F_URGENCY : SIM_F_APNS_PUSH_TYPE];
    text[T_PRIORITY] = q->field[SIM_F_APNS_PRIORITY];
    text[T_EXPIRATION] = q->field[e->provider == SIM_WEBPUSH ? SIM_F_TTL : SIM_F_APNS_EXPIRATION];
    text[T_COLLAPSE] = q->field[e->provider == SIM_WEBPUSH ? SIM_F_TOPIC : SIM_F_APNS_COLLAPSE_ID];
    text[T_REASON] = (struct sim_slice){e->reason, (uint32_t)strlen(e->reason)};
    if (e->a) {
        text[T_TOKEN] = e->a->token;
        text[T_TOPIC] = e->a->topic;
        text[T_ID] = (struct sim_slice){e->a->id, (uint32_t)strlen(e->a->id)};
    } else {
        text[T_TOKEN] = q->field[SIM_F_PATH];
        text[T_ID] = q->field[SIM_F_APNS_ID];
    }
    if (r->with_payload && e->provider != SIM_OAUTH) /* an assertion is a secret for an hour */
        text[T_PAYLOAD] = (struct sim_slice){q->body, q->body_bytes};
}

void sim_record_put(struct sim_record *r, unsigned worker, const struct sim_entry *e)
{
    struct ring *ring = &r->rings[worker];
    struct sim_slice text[T_COUNT];
    struct head h = {.provider = e->provider,
                     .time_us = e->time_us,
                     .conn = e->conn,
                     .latency_us = e->latency_us,
                     .hash = XXH3_64bits(e->q->body, e->q->body_bytes),
                     .body_bytes = e->q->body_bytes_total,
                     .stream = e->stream,
                     .status = e->status};
    uint32_t bytes = sizeof(h);
    collect(r, e, text);
    for (unsigned i = 0; i < T_COUNT; i++)
        bytes += h.text_bytes[i] = text[i].n;
    h.bytes = bytes = (bytes + 7) & ~7u;
    /* relaxed: this thread alone writes head */
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint8_t *at = reserve(ring, &head, bytes);
    memcpy(at, &h, sizeof(h));
    at += sizeof(h);
    for (unsigned i = 0; i < T_COUNT; i++) {
        if (text[i].n)
            memcpy(at, text[i].p, text[i].n);
        at += text[i].n;
    }
    atomic_store_explicit(&ring->head, head + bytes, memory_order_release);
}

/* ---- writer ---- */

static void write_out(struct sim_record *r)
{
    size_t done = 0;
    while (done < r->out_bytes) {
        ssize_t n = write(r->fd, r->out + done, r->out_bytes - done);
        if (n < 0 && errno != EINTR) {
            fprintf(stderr, "belfry-sim: record %s: %s\n", r->path, strerror(errno));
            abort(); /* a record with a hole would make the ledger lie */
        }
        done += n > 0 ? (size_t)n : 0;
    }
    r->out_bytes = 0;
}

/* Bytes above 0x7f pass as they are when |text| (UTF-8 JSON), else as \u00xx: a Web Push body is
 * binary. */
static char *escape(char *at, const char *p, uint32_t n, bool text)
{
    static const char hex[] = "0123456789abcdef";
    for (uint32_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '"' || c == '\\') {
            *at++ = '\\';
            *at++ = (char)c;
        } else if (c < 0x20 || c == 0x7f || (c > 0x7f && !text)) {
            memcpy(at, "\\u00", 4);
            at[4] = hex[c >> 4];
            at[5] = hex[c & 15];
            at += 6;
        } else {
            *at++ = (char)c;
        }
    }
    return at;
}

static void format_line(struct sim_record *r, const struct head *h, const char *text)
{
    char *at = r->line;
    at += snprintf(at, 256,
                   "{\"t\":%" PRId64 ",\"provider\":\"%s\",\"conn\":%" PRIu64
                   ",\"stream\":%d,\"status\":%u"
                   ",\"bytes\":%" PRIu64 ",\"hash\":\"%016" PRIx64 "\",\"latency_us\":%" PRIu64,
                   h->time_us, sim_providers[h->provider].name, h->conn, h->stream, h->status,
                   h->body_bytes, h->hash, h->latency_us);
    for (unsigned i = 0; i < T_COUNT; i++) {
        if (h->text_bytes[i]) {
            at += snprintf(at, 32, ",\"%s\":\"", text_names[i]);
            at = escape(at, text, h->text_bytes[i], i != T_PAYLOAD || h->provider != SIM_WEBPUSH);
            *at++ = '"';
        }
        text += h->text_bytes[i];
    }
    *at++ = '}';
    *at++ = '\n';
    size_t bytes = (size_t)(at - r->line);
    if (r->out_bytes + bytes > OUT_BYTES)
        write_out(r);
    memcpy(r->out + r->out_bytes, r->line, bytes);
    r->out_bytes += bytes;
}

/* Formats all that |ring| holds, writes it, then frees its place. Returns the lines. */
static uint64_t drain(struct sim_record *r, struct ring *ring)
{
    uint64_t lines = 0;
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed); /* ours alone */
    /* acquire: pairs with the worker's release, the entries up to head are complete */
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    while (tail != head) {
        struct head h;
        const uint8_t *at = ring->bytes + tail % SIM_RECORD_RING_BYTES;
        memcpy(&h.bytes, at, 4);
        if (h.bytes == 0) {
            tail += SIM_RECORD_RING_BYTES - tail % SIM_RECORD_RING_BYTES;
            continue;
        }
        memcpy(&h, at, sizeof(h));
        format_line(r, &h, (const char *)at + sizeof(h));
        tail += h.bytes;
        lines++;
    }
    if (lines) {
        write_out(r); /* before the tail moves: flush takes a moved tail for written */
        atomic_fetch_add_explicit(&r->lines, lines, memory_order_relaxed);
        atomic_store_explicit(&ring->tail, tail, memory_order_release);
    }
    return lines;
}

static void *writer_main(void *arg)
{
    struct sim_record *r = arg;
    for (;;) {
        /* acquire, before draining: what was put before stop is seen below */
        bool last = atomic_load_explicit(&r->stop, memory_order_acquire);
        uint64_t lines = 0;
        for (unsigned i = 0; i < r->rings_count; i++)
            lines += drain(r, &r->rings[i]);
        if (lines == 0 && last)
            return NULL;
        if (lines == 0)
            pause_ns(IDLE_PAUSE_NS);
    }
}

uint64_t sim_record_flush(struct sim_record *r)
{
    for (unsigned i = 0; i < r->rings_count; i++) {
        uint64_t head = atomic_load_explicit(&r->rings[i].head, memory_order_acquire);
        while (atomic_load_explicit(&r->rings[i].tail, memory_order_acquire) < head)
            pause_ns(IDLE_PAUSE_NS);
    }
    return atomic_load_explicit(&r->lines, memory_order_relaxed);
}

uint64_t sim_record_waits(const struct sim_record *r)
{
    uint64_t waits = 0;
    for (unsigned i = 0; i < r->rings_count; i++)
        waits += atomic_load_explicit(&r->rings[i].waits, memory_order_relaxed);
    return waits;
}

const char *sim_record_path(const struct sim_record *r)
{
    return r->path;
}

struct sim_record *sim_record_create(const char *path, unsigned workers, bool with_payload)
{
    struct sim_record *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    snprintf(r->path, sizeof(r->path), "%s", path);
    r->with_payload = with_payload;
    r->rings_count = workers;
    r->rings = aligned_alloc(64, workers * sizeof(*r->rings));
    r->out = malloc(OUT_BYTES);
    r->line = malloc(LINE_BYTES);
    r->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    bool ok = r->rings && r->out && r->line && r->fd >= 0;
    for (unsigned i = 0; ok && i < workers; i++) {
        memset(&r->rings[i], 0, sizeof(r->rings[i]));
        r->rings[i].bytes = aligned_alloc(64, SIM_RECORD_RING_BYTES);
        ok = r->rings[i].bytes != NULL;
    }
    if (ok && pthread_create(&r->thread, NULL, writer_main, r) == 0)
        return r;
    fprintf(stderr, "belfry-sim: record %s: %s\n", path, strerror(errno));
    return NULL; /* the program ends: nothing to take down by hand */
}

void sim_record_destroy(struct sim_record *r)
{
    if (!r)
        return;
    atomic_store_explicit(&r->stop, true, memory_order_release);
    pthread_join(r->thread, NULL);
    for (unsigned i = 0; i < r->rings_count; i++)
        free(r->rings[i].bytes);
    close(r->fd);
    free(r->rings);
    free(r->out);
    free(r->line);
    free(r);
}
