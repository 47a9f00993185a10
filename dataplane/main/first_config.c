/* See first_config.h. */
#include "main/first_config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "belfry/base/cursor.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf_snapshot.h"
#include "belfry/shm/snapshot.h"

static void put_text(struct bf_writer *w, enum bf_snapshot_tag tag, const char *text, size_t len)
{
    if (len == 0)
        return;
    bf_put_u16(w, (uint16_t)tag);
    bf_put_str32(w, (struct bf_bytes){.at = text, .len = len});
}

static void put_key(struct bf_writer *w, const struct bf_conf_jwt_key *key)
{
    uint8_t record[sizeof(key->key) + sizeof(key->kid) + 16];
    struct bf_writer r = {.buf = record, .cap = sizeof(record)};
    bf_put_str16(&r, (struct bf_bytes){.at = key->kid, .len = strlen(key->kid)});
    bf_put_u8(&r, (uint8_t)key->alg);
    bf_put_str16(&r, (struct bf_bytes){.at = (const char *)key->key, .len = key->len});
    put_text(w, BF_SNAP_JWT_KEY, (const char *)record, r.len);
    w->failed |= r.failed;
}

static void put_limits(struct bf_writer *w, const struct bf_conf *conf)
{
    bf_put_u16(w, BF_SNAP_LIMITS);
    bf_put_u32(w, 10 * sizeof(uint32_t));
    bf_put_u32(w, conf->ping_interval_ms);
    bf_put_u32(w, conf->presence_timeout_ms);
    bf_put_u32(w, conf->conn_queue_frames);
    bf_put_u32(w, conf->conn_queue_bytes);
    bf_put_u32(w, conf->slow_timeout_ms);
    bf_put_u32(w, conf->connections_max);
    bf_put_u32(w, conf->client_frames_per_s);
    bf_put_u32(w, conf->lifetime_s);
    bf_put_u32(w, conf->accept_rate);
    bf_put_u32(w, conf->per_address);
}

#define X(name) +1
_Static_assert((0 BF_SNAP_LIMIT_LIST(X)) == 10,
               "put_limits writes each limit of the list, in order");
#undef X

/* Comma separated, spaces around names ignored. */
static void put_origins(struct bf_writer *w, const char *list)
{
    while (*list != '\0') {
        size_t len = strcspn(list, ",");
        size_t lead = strspn(list, " ");
        size_t end = len;
        while (end > lead && list[end - 1] == ' ')
            end--;
        if (end > lead)
            put_text(w, BF_SNAP_ORIGIN, list + lead, end - lead);
        list += len + (list[len] == ',');
    }
}

/* Uses a ticket key of its own until the control process sends its first snapshot; clients that
 * connect before that do one more full handshake later. */
static int put_tls(struct bf_writer *w, const struct bf_conf *conf)
{
    struct bf_ticket_key key = {.made_ms = bf_wall_ms()};
    bf_conf_put_tls(w, conf);
    if (conf->cert_count == 0)
        return 0;
    if (getrandom(key.bytes, sizeof(key.bytes), 0) != (ssize_t)sizeof(key.bytes))
        return BF_ERR_NO_MEMORY;
    bf_conf_put_ticket_key(w, &key);
    explicit_bzero(&key, sizeof(key));
    return 0;
}

int bf_first_config(const struct bf_conf *conf, uint8_t **ret_content, size_t *ret_len)
{
    struct bf_writer w = {.buf = malloc(BF_SNAPSHOT_BYTES_MAX), .cap = BF_SNAPSHOT_BYTES_MAX};
    if (!w.buf)
        return BF_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < conf->jwt_key_count; i++)
        put_key(&w, &conf->jwt_keys[i]);
    put_text(&w, BF_SNAP_JWT_AUDIENCE, conf->jwt_audience, strlen(conf->jwt_audience));
    put_limits(&w, conf);
    for (uint32_t i = 0; i < conf->public_topic_count; i++)
        put_text(&w, BF_SNAP_PUBLIC_TOPIC, conf->public_topics[i], strlen(conf->public_topics[i]));
    put_origins(&w, conf->ws_origins);
    int rc = put_tls(&w, conf);
    if (rc == 0 && w.failed)
        rc = BF_ERR_TOO_LARGE;
    if (rc != 0) {
        free(w.buf);
        return rc;
    }
    *ret_content = w.buf;
    *ret_len = w.len;
    return 0;
}
