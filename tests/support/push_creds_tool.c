/*
 * push_creds_tool CONFIG [ORIGIN]: starts the credentials of push.apps and, once every pool is
 * ready, prints a JSON array: each pool as the snapshot has it, and the request of a sample
 * notification. What it prints holds tokens: for tests against belfry-sim. Exit code 0; 1 with a
 * line on stderr after 20 s.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/base64url.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf_load.h"
#include "channels/push/push_creds.h"
#include "channels/push/push_request.h"
#include "crypto/hash.h"

#define WAIT_MS 20000u

static const char p256dh[] =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

struct changed {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned count;
};

static void on_changed(void *arg)
{
    struct changed *c = arg;
    pthread_mutex_lock(&c->lock);
    c->count++;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->lock);
}

static _Noreturn void die(const char *text)
{
    fprintf(stderr, "push_creds_tool: %s\n", text);
    exit(1);
}

static void show(const char *key, struct bf_bytes text)
{
    printf("\"%s\":\"", key);
    if (text.len > 0)
        fwrite(text.at, 1, text.len, stdout); /* plain ASCII, all of it */
    printf("\"");
}

/* As a text of its own. */
static const char *copy(struct bf_bytes from, char *out, size_t cap)
{
    if (!from.at || from.len >= cap)
        die("a text is missing, or too long");
    memcpy(out, from.at, from.len);
    out[from.len] = '\0';
    return out;
}

static void show_base64(const char *key, struct bf_bytes bytes)
{
    static char text[BF_PUSH_REQUEST_BYTES_MAX * 2];
    size_t len = bf_base64url_encode((const uint8_t *)bytes.at, bytes.len, text);
    show(key, (struct bf_bytes){text, len});
}

static void show_request(struct bf_push_creds *creds, const char *app, enum bf_push_kind kind,
                         const char *authority)
{
    char why[BF_WHY_BYTES], endpoint[600];
    uint8_t out[BF_PUSH_REQUEST_BYTES_MAX];
    size_t len = 0;
    struct bf_push_pool_info info;
    struct bf_push_note note;
    struct bf_content_source source = {
        .now_ms = bf_wall_ms(),
        .lane = BF_LANE_NORMAL,
        .fragment = BF_BYTES(
            "\"type\":\"t\",\"title\":\"hello\",\"data\":{\"n\":1},\"collapse_key\":\"k.1\"")};
    struct bf_push_target target = {
        .kind = kind,
        .platform = (enum bf_platform)kind,
        .token = BF_BYTES("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")};
    if (bf_push_creds_find(creds, (struct bf_bytes){app, strlen(app)}, kind,
                           (struct bf_bytes){authority, strlen(authority)}, BF_BYTES(""),
                           &info) != 0)
        die("a pool in the records is not found");
    bf_random(source.message_id.bytes, sizeof(source.message_id.bytes));
    bf_id_seal(&source.message_id);
    snprintf(endpoint, sizeof(endpoint), "https://%s/push/one", authority);
    if (kind == BF_PUSH_WEBPUSH) {
        target.token = (struct bf_bytes){endpoint, strlen(endpoint)};
        target.p256dh = BF_BYTES(p256dh);
        target.auth = BF_BYTES("BTBZMqHH6r4Tts7J_aSIgg");
    }
    target.app_topic = (struct bf_bytes){info.topic, strlen(info.topic)};
    if (bf_push_note_open(&source, &note, why) != 0 ||
        bf_push_request_build(&note, &target, out, sizeof(out), &len, why) != 0)
        die(why);
    bf_push_note_close(&note);
    struct bf_reader r = {.buf = out, .len = len};
    printf(",\"id\":%u,", info.pool);
    show("path", bf_get_str16(&r));
    printf(",\"fields\":{");
    uint8_t count = bf_get_u8(&r);
    for (unsigned i = 0; i < count; i++) {
        struct bf_bytes name = bf_get_bytes(&r, bf_get_u8(&r));
        char text[64];
        copy(name, text, sizeof(text));
        printf("%s", i ? "," : "");
        show(text, bf_get_str16(&r));
    }
    printf("},");
    show_base64("body", bf_get_str32(&r));
}

static void show_pool(struct bf_push_creds *creds, struct bf_reader *r)
{
    char app[65], authority[300];
    if (bf_get_u16(r) != BF_SNAP_PUSH_POOL)
        die("a record of another kind");
    size_t end = r->at + 4;
    end += bf_get_u32(r);
    uint32_t id = bf_get_u32(r);
    enum bf_push_kind kind = (enum bf_push_kind)bf_get_u8(r);
    struct bf_bytes name = bf_get_str16(r), place = bf_get_str16(r);
    copy(name, app, sizeof(app));
    copy(place, authority, sizeof(authority));
    printf("{\"pool\":%u,\"kind\":%u,\"name\":\"%s\",\"authority\":\"%s\",", id, kind, app,
           authority);
    show("tls_name", bf_get_str16(r));
    printf(",\"addresses\":[");
    uint8_t count = bf_get_u8(r);
    for (unsigned i = 0; i < count; i++) {
        char text[64];
        copy(bf_get_str16(r), text, sizeof(text));
        printf("%s[\"%s\",%u]", i ? "," : "", text, bf_get_u16(r));
    }
    uint16_t min = bf_get_u16(r), max = bf_get_u16(r);
    uint32_t first = bf_get_u32(r), ping = bf_get_u32(r);
    uint8_t flags = bf_get_u8(r);
    printf("],\"min\":%u,\"max\":%u,\"streams_first\":%u,\"ping_idle_ms\":%u,\"flags\":%u,", min,
           max, first, ping, flags);
    show("authorization", bf_get_str32(r));
    printf(",\"cert_bytes\":%zu", bf_get_str32(r).len);
    printf(",\"key_bytes\":%zu", bf_get_str32(r).len);
    printf(",\"ca_bytes\":%zu", bf_get_str32(r).len);
    show_request(creds, app, kind, authority);
    printf("}");
    if (r->failed || r->at != end)
        die("a record that does not decode");
}

/* Whether every app has a pool that is ready; asks for the origin of Web Push apps. */
static bool is_all_ready(struct bf_push_creds *creds, const struct bf_conf *conf,
                         const char *origin)
{
    bool is_ready = true;
    for (uint32_t i = 0; i < conf->push_app_count; i++) {
        const struct bf_conf_push_app *app = &conf->push_apps[i];
        struct bf_push_pool_info info;
        int rc =
            bf_push_creds_find(creds, (struct bf_bytes){app->name, strlen(app->name)}, app->kind,
                               (struct bf_bytes){origin, strlen(origin)}, BF_BYTES(""), &info);
        if (rc != 0)
            die(bf_err_text(rc));
        is_ready = is_ready && info.is_ready;
    }
    return is_ready;
}

int main(int argc, char **argv)
{
    char err[512] = "";
    struct bf_conf *conf = NULL;
    struct bf_push_creds *creds = NULL;
    struct changed changed = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    static uint8_t records[256 * 1024];
    struct bf_writer w = {.buf = records, .cap = sizeof(records)};
    const char *origin = argc > 2 ? argv[2] : "";
    if (argc < 2 || bf_conf_load(argv[1], &conf, err, sizeof(err)) != 0)
        die(argc < 2 ? "push_creds_tool CONFIG [ORIGIN]" : err);
    struct bf_push_creds_options options = {.conf = conf, .changed = on_changed, .arg = &changed};
    if (bf_push_creds_start(&options, &creds, err, sizeof(err)) != 0)
        die(err);
    uint64_t until_ms = bf_mono_ms() + WAIT_MS;
    pthread_mutex_lock(&changed.lock);
    while (!is_all_ready(creds, conf, origin)) {
        struct timespec ts;
        if (bf_mono_ms() > until_ms)
            die("not every pool is ready");
        clock_gettime(CLOCK_REALTIME, &ts);
        ts.tv_sec++;
        pthread_cond_timedwait(&changed.cond, &changed.lock, &ts);
    }
    pthread_mutex_unlock(&changed.lock);
    bf_push_creds_write(creds, &w);
    struct bf_reader r = {.buf = records, .len = w.len};
    printf("[");
    for (unsigned i = 0; r.at < r.len; i++) {
        printf("%s", i ? "," : "");
        show_pool(creds, &r);
    }
    printf("]\n");
    bf_push_creds_stop(creds);
    bf_conf_free(conf);
    return 0;
}
