/*
 * A dataplane and the producing end of its push commands, for tests against real peers:
 *
 *   push_tool --port P --ca FILE [--name TLSNAME] [--authorization TEXT] [--pushes N] [--rate
 * PER_S]
 *             [--min N] [--max N] [--streams-first N] [--ping-idle MS] [--deadline MS] [--seconds
 * S]
 *
 * sends N pushes, waits for a result of each, and prints one JSON object: how many of each end, of
 * each reason and status, what the pool said last, and the dataplane's counters. Exit code 1: a
 * result is missing after --seconds.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "belfry/base/cursor.h"
#include "belfry/base/time.h"
#include "pf_args.h"
#include "pf_plane.h"
#include "pf_report.h"

#define POOL       1u
#define STATUS_MAX 600u
#define FILE_BYTES 65536u

struct options {
    uint64_t port, pushes, rate, min, max, streams_first, ping_idle, deadline, seconds, linger_ms;
    const char *ca, *name, *authorization;
};

struct totals {
    _Atomic uint64_t done;
    _Atomic uint32_t ends[BF_PUSH_END_COUNT];
    _Atomic uint32_t whys[BF_PUSH_WHY_COUNT];
    _Atomic uint32_t statuses[STATUS_MAX];
    _Atomic uint32_t twice;
    _Atomic uint32_t goaways;
    _Atomic uint32_t failures;
    _Atomic uint32_t connections;
    uint8_t *seen;
    uint64_t pushes;
    char text[BF_PUSH_POOL_TEXT_MAX + 1];
};

static void take(void *context, uint16_t kind, const uint8_t *bytes, uint32_t len)
{
    struct totals *t = context;
    struct bf_rcpt_push push;
    struct bf_rcpt_pool pool;
    if (kind == BF_RCPT_POOL && len >= sizeof(pool)) {
        memcpy(&pool, bytes, sizeof(pool));
        snprintf(t->text, sizeof(t->text), "%.*s", (int)pool.text_len,
                 (const char *)bytes + sizeof(pool));
        t->goaways = pool.goaways;
        t->failures = pool.failures;
        t->connections = pool.connections;
    }
    if (kind != BF_RCPT_PUSH || len < sizeof(push))
        return;
    memcpy(&push, bytes, sizeof(push));
    if (push.push_id == 0 || push.push_id > t->pushes || push.end >= BF_PUSH_END_COUNT ||
        push.why >= BF_PUSH_WHY_COUNT || push.status >= STATUS_MAX)
        pf_die("an impossible receipt");
    if (t->seen[push.push_id - 1]++)
        t->twice++;
    t->ends[push.end]++;
    t->whys[push.why]++;
    t->statuses[push.status]++;
    t->done++;
}

static struct bf_bytes read_file(const char *path)
{
    static char text[FILE_BYTES];
    FILE *file = path ? fopen(path, "re") : NULL;
    if (path && !file)
        pf_die("cannot read %s", path);
    size_t n = file ? fread(text, 1, sizeof(text), file) : 0;
    if (file)
        fclose(file);
    return (struct bf_bytes){text, n};
}

static struct bf_bytes text_of(const char *text)
{
    return (struct bf_bytes){text, text ? strlen(text) : 0};
}

static void publish_pool(struct pf_plane *plane, const struct options *o)
{
    static uint8_t content[BF_SNAPSHOT_BYTES_MAX], pool[2 * FILE_BYTES];
    struct bf_writer v = {.buf = pool, .cap = sizeof(pool)};
    struct bf_writer w = {.buf = content, .cap = sizeof(content)};
    bf_put_u32(&v, POOL);
    bf_put_u8(&v, BF_PUSH_APNS);
    bf_put_str16(&v, BF_BYTES("test"));
    bf_put_str16(&v, BF_BYTES("localhost"));
    bf_put_str16(&v, text_of(o->name));
    bf_put_u8(&v, 1);
    bf_put_str16(&v, BF_BYTES("127.0.0.1"));
    bf_put_u16(&v, (uint16_t)o->port);
    bf_put_u16(&v, (uint16_t)o->min);
    bf_put_u16(&v, (uint16_t)o->max);
    bf_put_u32(&v, (uint32_t)o->streams_first);
    bf_put_u32(&v, (uint32_t)o->ping_idle);
    bf_put_u8(&v, 0);
    bf_put_str32(&v, text_of(o->authorization));
    bf_put_str32(&v, (struct bf_bytes){0});
    bf_put_str32(&v, (struct bf_bytes){0});
    bf_put_str32(&v, read_file(o->ca));
    bf_put_u16(&w, BF_SNAP_PUSH_POOL);
    bf_put_str32(&w, (struct bf_bytes){(const char *)pool, v.len});
    bf_put_u16(&w, BF_SNAP_END);
    bf_put_u32(&w, 0);
    pf_plane_snapshot(plane, content, w.len);
}

static void fill(void *context, uint8_t *at)
{
    const struct bf_writer *w = context;
    memcpy(at, w->buf, w->len);
}

static void put_field(struct bf_writer *w, const char *name, const char *value)
{
    bf_put_u8(w, (uint8_t)strlen(name));
    bf_put_raw(w, name, strlen(name));
    bf_put_str16(w, text_of(value));
}

static void pause_us(long us)
{
    nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL);
}

static void push_one(struct pf_plane *plane, const struct options *o, uint64_t number)
{
    uint8_t bytes[512];
    char path[96];
    struct bf_writer w = {.buf = bytes, .cap = sizeof(bytes)};
    struct bf_cmd_push cmd = {
        .push_id = number + 1, .pool = POOL, .deadline_ms = (uint32_t)o->deadline};
    snprintf(path, sizeof(path), "/3/device/%064" PRIx64, number);
    bf_put_str16(&w, text_of(path));
    bf_put_u8(&w, 3);
    put_field(&w, "apns-topic", "com.example.app");
    put_field(&w, "apns-push-type", "alert");
    put_field(&w, "content-type", "application/json");
    bf_put_str32(&w, BF_BYTES("{\"aps\":{\"alert\":\"hello\"}}"));
    while (!pf_plane_push(plane, &cmd, BF_LANE_NORMAL, w.len, fill, &w)) {
        pf_plane_flush(plane);
        pause_us(500);
    }
    pf_plane_flush(plane);
}

/* All pushes, at the rate asked for; then until each has its result. */
static bool run(struct pf_plane *plane, struct totals *t, const struct options *o)
{
    uint64_t start = bf_mono_ns(), end = start + o->seconds * 1000000000u;
    for (uint64_t i = 0; i < o->pushes; i++) {
        while (o->rate > 0 && (bf_mono_ns() - start) * o->rate < i * 1000000000u)
            pause_us(200);
        push_one(plane, o, i);
    }
    while (t->done < o->pushes && bf_mono_ns() < end)
        pause_us(1000);
    pause_us((long)o->linger_ms * 1000);
    return t->done == o->pushes;
}

static void print(const struct pf_plane *plane, const struct totals *t)
{
    static const char *const ends[] = {"answered", "not_sent", "unknown"};
    static const char *const whys[BF_PUSH_WHY_COUNT] = {
        "none",  "no_pool", "busy",     "no_connection", "closed",     "goaway", "refused",
        "reset", "timeout", "stopping", "bad_request",   "bad_answer", "masked"};
    const char *comma = "";
    printf("{\"done\":%" PRIu64 ",\"twice\":%u", t->done, t->twice);
    for (uint32_t i = 0; i < BF_PUSH_END_COUNT; i++)
        printf(",\"%s\":%u", ends[i], t->ends[i]);
    printf(",\"why\":{");
    for (uint32_t i = 1; i < BF_PUSH_WHY_COUNT; i++, comma = ",")
        printf("%s\"%s\":%u", comma, whys[i], t->whys[i]);
    printf("},\"status\":{");
    comma = "";
    for (uint32_t i = 100; i < STATUS_MAX; i++) {
        if (t->statuses[i] > 0) {
            printf("%s\"%u\":%u", comma, i, t->statuses[i]);
            comma = ",";
        }
    }
    printf("},\"goaways\":%u,\"failures\":%u,\"connections\":%u,\"connects\":%" PRIu64
           ",\"moved\":%" PRIu64 ",\"text\":\"",
           t->goaways, t->failures, t->connections, pf_plane_metric(plane, BF_M_push_connects),
           pf_plane_metric(plane, BF_M_push_moved));
    for (const char *c = t->text; *c; c++)
        printf(*c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
    printf("\"}\n");
}

int main(int argc, char **argv)
{
    struct options o = {
        .pushes = 100, .min = 1, .max = 1, .deadline = 0, .seconds = 30, .name = "localhost"};
    const struct pf_option table[] = {
        {"--port", &o.port, NULL, NULL, "of the peer, on 127.0.0.1"},
        {"--ca", NULL, &o.ca, NULL, "its CA, PEM"},
        {"--name", NULL, &o.name, NULL, "its name in the certificate"},
        {"--authorization", NULL, &o.authorization, NULL, "header field"},
        {"--pushes", &o.pushes, NULL, NULL, "how many"},
        {"--rate", &o.rate, NULL, NULL, "a second; 0: as fast as they go"},
        {"--min", &o.min, NULL, NULL, "connections"},
        {"--max", &o.max, NULL, NULL, "connections"},
        {"--streams-first", &o.streams_first, NULL, NULL, "until the first good answer"},
        {"--ping-idle", &o.ping_idle, NULL, NULL, "ms"},
        {"--deadline", &o.deadline, NULL, NULL, "of a push, ms; 0: 5 s"},
        {"--seconds", &o.seconds, NULL, NULL, "for all of it"},
        {"--linger", &o.linger_ms, NULL, NULL, "ms after the last result"},
        {0},
    };
    static struct totals t;
    pf_args(argc, argv, table);
    t.pushes = o.pushes;
    t.seen = calloc(o.pushes + 1, 1);
    if (!t.seen || o.port == 0)
        pf_die("--port is needed");
    struct pf_plane *plane =
        pf_plane_start("dataplane:\n  workers: 1\n  connections_max: 1000\n", false, -1);
    pf_plane_on_receipt(plane, take, &t);
    publish_pool(plane, &o);
    bool is_whole = run(plane, &t, &o);
    print(plane, &t);
    pf_plane_stop(plane);
    return is_whole ? 0 : 1;
}
