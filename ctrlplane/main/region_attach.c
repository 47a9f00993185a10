/* See region_attach.h. */
#include "main/region_attach.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/random.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <rte_memzone.h>

#include "belfry/base/cursor.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/log_stream.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf_snapshot.h"
#include "channels/table/channels.h"

#define EAL_ARGS_MAX 12

static enum bf_log_level eal_level(void)
{
    int level = rte_log_cur_msg_loglevel();
    if (level <= (int)RTE_LOG_ERR)
        return BF_LOG_ERROR;
    return level == (int)RTE_LOG_WARNING ? BF_LOG_WARN : BF_LOG_DEBUG;
}

static int init_eal(const struct bf_current *current)
{
    char prefix[BF_EAL_PREFIX_BYTES_MAX + 16];
    char lcores[32];
    snprintf(prefix, sizeof(prefix), "--file-prefix=%s", current->prefix);
    /* EAL binds its main thread to a core; any will do, because the affinity is restored afterwards
     */
    snprintf(lcores, sizeof(lcores), "--lcores=0@%d", sched_getcpu());
    char name[] = "belfry-ctrlplane", type[] = "--proc-type=secondary", pci[] = "--no-pci";
    char telemetry[] = "--no-telemetry", level[] = "--log-level=error";
    char *argv[EAL_ARGS_MAX] = {name, type, prefix, lcores, pci, telemetry, level, NULL};
    static struct bf_log_stream stream = {.plane = "ctrlplane", .level = eal_level};
    FILE *file = bf_log_stream_open(&stream);
    if (file) /* EAL keeps it until the process ends */
        (void)rte_openlog_stream(file);
    return rte_eal_init(7, argv) < 0 ? BF_ERR_AWAY : 0;
}

int bf_region_attach(const struct bf_conf *conf, const struct bf_current *current,
                     struct bf_region **ret, char *err, size_t err_len)
{
    cpu_set_t before;
    (void)conf;
    if (current->layout_hash != bf_layout_hash()) {
        snprintf(err, err_len,
                 "the running dataplane was built with another shared-memory contract: "
                 "restart the dataplane; it goes on serving its sockets until then");
        return BF_ERR_CONTRACT;
    }
    sched_getaffinity(0, sizeof(before), &before);
    int rc = init_eal(current);
    sched_setaffinity(0, sizeof(before), &before);
    if (rc != 0) {
        snprintf(err, err_len, "EAL cannot attach to %s (%s)", current->prefix,
                 rte_strerror(rte_errno));
        return rc;
    }
    const struct rte_memzone *zone = rte_memzone_lookup(BF_SHM_MEMZONE);
    if (!zone) {
        snprintf(err, err_len, "no region in %s: the dataplane died while starting",
                 current->prefix);
        return BF_ERR_AWAY;
    }
    struct bf_region *region = zone->addr;
    if (region->magic != BF_SHM_MAGIC || region->contract_version != BF_SHM_CONTRACT_VERSION ||
        region->layout_hash != bf_layout_hash() || region->generation != current->generation) {
        snprintf(err, err_len, "the region's contract differs: restart the dataplane");
        return BF_ERR_CONTRACT;
    }
    *ret = region;
    return 0;
}

/* ---- snapshot ---- */

static void put_record(struct bf_writer *w, enum bf_snapshot_tag tag, struct bf_bytes value)
{
    bf_put_u16(w, (uint16_t)tag);
    bf_put_str32(w, value);
}

static void put_jwt_key(struct bf_writer *w, const struct bf_conf_jwt_key *key)
{
    uint8_t buf[BF_CONF_JWT_KEY_BYTES + 128];
    struct bf_writer value = {.buf = buf, .cap = sizeof(buf)};
    bf_put_str16(&value, (struct bf_bytes){.at = key->kid, .len = strlen(key->kid)});
    bf_put_u8(&value, (uint8_t)key->alg);
    bf_put_str16(&value, (struct bf_bytes){.at = (const char *)key->key, .len = key->len});
    put_record(w, BF_SNAP_JWT_KEY, (struct bf_bytes){.at = (char *)buf, .len = value.len});
}

static void put_limits(struct bf_writer *w, const struct bf_conf *conf)
{
    uint8_t buf[256];
    struct bf_writer value = {.buf = buf, .cap = sizeof(buf)};
    const uint32_t max_connections = conf->connections_max; /* the list's name for it */
#define X(name) name,
    const uint32_t ping_interval_ms = conf->ping_interval_ms,
                   presence_timeout_ms = conf->presence_timeout_ms,
                   conn_queue_frames = conf->conn_queue_frames,
                   conn_queue_bytes = conf->conn_queue_bytes,
                   slow_timeout_ms = conf->slow_timeout_ms,
                   client_frames_per_s = conf->client_frames_per_s, lifetime_s = conf->lifetime_s,
                   accept_rate = conf->accept_rate, per_address = conf->per_address;
    const uint32_t limits[] = {BF_SNAP_LIMIT_LIST(X)};
#undef X
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
        bf_put_u32(&value, limits[i]);
    put_record(w, BF_SNAP_LIMITS, (struct bf_bytes){.at = (char *)buf, .len = value.len});
}

/* One record for each comma-separated origin. */
static void put_origins(struct bf_writer *w, const char *list)
{
    while (*list) {
        size_t len = strcspn(list, ",");
        if (len > 0)
            put_record(w, BF_SNAP_ORIGIN, (struct bf_bytes){.at = list, .len = len});
        list += len + (list[len] == ',');
    }
}

/* Ticket keys live in snapshots alone: a control process that starts goes on with those of the one
 * before it, and makes a new one when the newest has served its time. */
static int put_ticket_keys(struct bf_writer *w, struct bf_region *region)
{
    struct bf_snapshot_area *area = bf_snapshots(region);
    uint64_t current = atomic_load(&area->current);
    const struct bf_snapshot_slot *slot = &area->slots[current % BF_SNAPSHOT_SLOTS];
    struct bf_ticket_key keys[BF_SNAP_TICKET_KEYS_MAX];
    uint64_t now_ms = bf_wall_ms();
    uint32_t count = 0;
    int rc = 0;
    if (current != 0 && atomic_load(&slot->seq) == current && slot->len <= BF_SNAPSHOT_BYTES_MAX)
        count = bf_conf_get_ticket_keys(slot->content, slot->len, keys);
    if (count == 0 || now_ms - keys[0].made_ms >= BF_TICKET_KEY_MS) {
        struct bf_ticket_key fresh = {.made_ms = now_ms};
        if (getrandom(fresh.bytes, sizeof(fresh.bytes), 0) != (ssize_t)sizeof(fresh.bytes))
            rc = -EIO;
        bf_conf_put_ticket_key(w, &fresh);
        explicit_bzero(&fresh, sizeof(fresh));
        count = count > 0 ? 1 : 0; /* the older one has opened tickets for long enough */
    }
    for (uint32_t i = 0; i < count; i++)
        bf_conf_put_ticket_key(w, &keys[i]);
    explicit_bzero(keys, sizeof(keys));
    return rc;
}

static void put_log(struct bf_writer *w, const struct bf_conf *conf)
{
    uint8_t buf[64];
    struct bf_writer value = {.buf = buf, .cap = sizeof(buf)};
    bf_put_str16(&value, (struct bf_bytes){.at = conf->log_level, .len = strlen(conf->log_level)});
    bf_put_str16(&value,
                 (struct bf_bytes){.at = conf->log_format, .len = strlen(conf->log_format)});
    put_record(w, BF_SNAP_LOG, (struct bf_bytes){.at = (char *)buf, .len = value.len});
}

static int write_content(struct bf_writer *w, const struct bf_conf *conf, struct bf_region *region,
                         struct bf_channels *channels)
{
    int rc = 0;
    for (uint32_t i = 0; i < conf->jwt_key_count; i++)
        put_jwt_key(w, &conf->jwt_keys[i]);
    if (conf->jwt_audience[0])
        put_record(w, BF_SNAP_JWT_AUDIENCE,
                   (struct bf_bytes){.at = conf->jwt_audience, .len = strlen(conf->jwt_audience)});
    put_limits(w, conf);
    for (uint32_t i = 0; i < conf->public_topic_count; i++)
        put_record(
            w, BF_SNAP_PUBLIC_TOPIC,
            (struct bf_bytes){.at = conf->public_topics[i], .len = strlen(conf->public_topics[i])});
    put_origins(w, conf->ws_origins);
    put_log(w, conf);
    bf_conf_put_tls(w, conf);
    if (conf->cert_count > 0)
        rc = put_ticket_keys(w, region);
    if (channels)
        bf_channels_snapshot(channels, w);
    put_record(w, BF_SNAP_END, (struct bf_bytes){0});
    return rc == 0 && w->failed ? BF_ERR_TOO_LARGE : rc;
}

static bool is_slot_in_use(struct bf_region *region, uint64_t slot)
{
    struct bf_snapshot_area *area = bf_snapshots(region);
    for (uint32_t w = 0; w < region->geometry.workers; w++) {
        /* seq_cst: Dekker with a worker that takes `current` and publishes what it uses */
        uint64_t seq = atomic_load(&area->using_by[w].seq);
        if (seq != 0 && seq % BF_SNAPSHOT_SLOTS == slot)
            return true;
    }
    return false;
}

int bf_snapshot_publish(struct bf_region *region, const struct bf_conf *conf,
                        struct bf_channels *channels)
{
    struct bf_snapshot_area *area = bf_snapshots(region);
    uint64_t seq = atomic_load(&area->current) + 1;
    uint64_t first = seq;
    while (is_slot_in_use(region, seq % BF_SNAPSHOT_SLOTS) ||
           seq % BF_SNAPSHOT_SLOTS == atomic_load(&area->current) % BF_SNAPSHOT_SLOTS)
        if (++seq - first >= BF_SNAPSHOT_SLOTS)
            return BF_ERR_FULL;
    struct bf_snapshot_slot *slot = &area->slots[seq % BF_SNAPSHOT_SLOTS];
    atomic_store(&slot->seq, 0);
    struct bf_writer w = {.buf = slot->content, .cap = sizeof(slot->content)};
    int rc = write_content(&w, conf, region, channels);
    if (rc != 0)
        return rc;
    slot->len = (uint32_t)w.len;
    slot->checksum = XXH3_64bits(slot->content, w.len);
    atomic_store(&slot->seq, seq);
    atomic_store(&area->current, seq);
    for (uint32_t i = 0; i < region->geometry.workers; i++)
        bf_doorbell_ring(bf_worker_bell(region, i));
    return 0;
}
