/* Small named values, and the row from which the epoch comes (DESIGN 4.5). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "store/store_impl.h"

/* A restore procedure makes this file beside the data: the next start begins a new epoch. */
#define RESTORED_MARKER "RESTORED"
/* Text of /proc/sys/kernel/random/boot_id. */
#define BOOT_ID_BYTES 36u

void bf_batch_put_value(struct bf_batch *b, struct bf_bytes name, struct bf_bytes value)
{
    struct bf_key key;
    bf_key_begin(&key, BF_T_VALUE);
    bf_key_raw(&key, name.at, name.len);
    struct bf_writer w = bf_batch_value(b, value.len);
    bf_put_bytes(&w, value);
    bf_batch_put(b, &key, &w);
}

int bf_store_get_value(struct bf_store *s, struct bf_bytes name, uint8_t *out, size_t cap,
                       size_t *ret_len)
{
    struct bf_key key;
    struct bf_row row;
    bf_key_begin(&key, BF_T_VALUE);
    bf_key_raw(&key, name.at, name.len);
    int rc = bf_store_get(s, &key, &row);
    if (rc != 0)
        return rc;
    struct bf_reader r = bf_value_reader(row.value, NULL);
    struct bf_bytes value = bf_get_bytes(&r, r.failed ? 0 : row.value.len - r.at);
    if (r.failed) {
        rc = bf_rocks_corrupt("value", key.at, key.len);
    } else if (value.len > cap) {
        rc = BF_ERR_TOO_LARGE;
    } else {
        if (value.len > 0)
            memcpy(out, value.at, value.len);
        *ret_len = value.len;
    }
    bf_row_put(&row);
    return rc;
}

/* ---- epoch -------------------------------------------------------------------------------------- */

struct epoch_row {
    uint64_t id;
    uint32_t count;
    bool is_clean;
    char boot_id[BOOT_ID_BYTES];
};

static void epoch_key(struct bf_key *key)
{
    bf_key_begin(key, BF_T_META);
    bf_key_raw(key, "epoch", 5);
}

/* Zeros where the kernel does not tell: then every unclean stop counts as a reboot. */
static void read_boot_id(char out[BOOT_ID_BYTES])
{
    memset(out, 0, BOOT_ID_BYTES);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (read(fd, out, BOOT_ID_BYTES) != (ssize_t)BOOT_ID_BYTES)
        memset(out, 0, BOOT_ID_BYTES);
    close(fd);
}

static int get_epoch(struct bf_store *s, struct epoch_row *ret)
{
    struct bf_key key;
    struct bf_row row;
    epoch_key(&key);
    int rc = bf_store_get(s, &key, &row);
    if (rc != 0)
        return rc;
    struct bf_reader r = bf_value_reader(row.value, NULL);
    ret->id = bf_get_u64(&r);
    ret->count = bf_get_u32(&r);
    ret->is_clean = bf_get_u8(&r) != 0;
    const uint8_t *boot_id = bf_get_raw(&r, BOOT_ID_BYTES);
    if (bf_value_is_read(&r))
        memcpy(ret->boot_id, boot_id, BOOT_ID_BYTES);
    else
        rc = bf_rocks_corrupt("epoch", key.at, key.len);
    bf_row_put(&row);
    return rc;
}

static int put_epoch(struct bf_store *s, const struct epoch_row *epoch)
{
    struct bf_key key;
    struct bf_batch *b = bf_batch_create(s);
    epoch_key(&key);
    struct bf_writer w = bf_batch_value(b, 16 + BOOT_ID_BYTES);
    bf_put_u64(&w, epoch->id);
    bf_put_u32(&w, epoch->count);
    bf_put_u8(&w, epoch->is_clean);
    bf_put_raw(&w, epoch->boot_id, BOOT_ID_BYTES);
    bf_batch_put(b, &key, &w);
    int rc = bf_batch_write(b, true);
    bf_batch_destroy(b);
    return rc;
}

static bool has_marker(const struct bf_store *s, char *path, size_t path_len)
{
    int n = snprintf(path, path_len, "%s/" RESTORED_MARKER, s->dir);
    return n > 0 && (size_t)n < path_len && access(path, F_OK) == 0;
}

int bf_store_load_epoch(struct bf_store *s, char *err, size_t err_len)
{
    struct epoch_row epoch = {0};
    char boot_id[BOOT_ID_BYTES], marker[600];
    int rc = get_epoch(s, &epoch);
    read_boot_id(boot_id);
    bool is_restored = has_marker(s, marker, sizeof(marker));
    if (rc == BF_ERR_NOT_FOUND) {
        if (getrandom(&epoch.id, sizeof(epoch.id), 0) != (ssize_t)sizeof(epoch.id))
            return -errno;
    } else if (rc != 0) {
        snprintf(err, err_len, "the epoch of the store in %s does not decode; restore a backup",
                 s->dir);
        return rc;
    } else if (is_restored || (!epoch.is_clean && (memcmp(boot_id, epoch.boot_id,
                                                          BOOT_ID_BYTES) != 0 || boot_id[0] == 0))) {
        epoch.count++;
    }
    epoch.is_clean = false;
    memcpy(epoch.boot_id, boot_id, BOOT_ID_BYTES);
    rc = put_epoch(s, &epoch);
    if (rc == 0 && is_restored && unlink(marker) != 0)
        BF_WARN("ctrlplane", "store: cannot remove %s; the next start begins a new epoch again",
                marker);
    s->epoch_id = epoch.id;
    s->epoch_count = epoch.count;
    snprintf(s->epoch, sizeof(s->epoch), "%016llx-%u", (unsigned long long)epoch.id, epoch.count);
    return rc;
}

int bf_store_mark_clean(struct bf_store *s)
{
    struct epoch_row epoch = {.id = s->epoch_id, .count = s->epoch_count, .is_clean = true};
    read_boot_id(epoch.boot_id);
    return put_epoch(s, &epoch);
}
