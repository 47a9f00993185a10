/*
 * belfryctl backup: asks the running node and shows how far it is. belfryctl restore: works on the
 * files of a stopped node. It copies the backup beside the state, verifies it, and only then moves
 * things; the file RESTORING keeps a node from starting on half of them. Nothing is deleted.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backup/backup.h"
#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "belfry/base/time.h"
#include "belfry/shm/own.h"
#include "ctl/ctl.h"

#define POLL_NS       200000000L
#define INCOMING      ".restoring"
#define BEFORE_PREFIX ".before-restore-"
#define MIB           (1024u * 1024u)

static void show(const struct bf_ctl *ctl, const char *what, uint64_t done, uint64_t total)
{
    if (!ctl->is_json && total > 0)
        fprintf(stderr, "\r%s: %llu of %llu MiB", what, (unsigned long long)(done / MIB),
                (unsigned long long)((total + MIB - 1) / MIB));
}

/* ---- backup ---- */

/* The destination as the node sees it: relative ones are relative to us. */
static bool absolute(const char *given, char out[BF_BACKUP_PATH_MAX])
{
    char here[BF_BACKUP_PATH_MAX] = "";
    if (given[0] != '/' && getcwd(here, sizeof(here)) == NULL)
        return false;
    int n = snprintf(out, BF_BACKUP_PATH_MAX, "%s%s%s", here, here[0] ? "/" : "", given);
    while (n > 1 && n < (int)BF_BACKUP_PATH_MAX && out[n - 1] == '/')
        out[--n] = 0;
    return n > 0 && n < (int)BF_BACKUP_PATH_MAX;
}

static int begin_backup(struct bf_ctl *ctl, const char *dest)
{
    struct bf_out o = {0};
    struct bf_reply reply;
    size_t len;
    bf_out_text(&o, "{\"destination\":");
    bf_out_cstr(&o, dest);
    bf_out_text(&o, "}");
    char *body = bf_out_take(&o, &len);
    bool reached = body && bf_ctl_call(ctl, "POST", "/admin/backup", body, &reply);
    free(body);
    if (!reached)
        return BF_CTL_FAILED;
    int code = reply.status == 202 ? BF_CTL_OK : bf_ctl_refused(&reply);
    bf_reply_free(&reply);
    return code;
}

/* One look at it; true while it goes on. */
static bool follow_backup(struct bf_ctl *ctl, const char *dest, int *ret_code)
{
    struct bf_reply reply;
    *ret_code = BF_CTL_FAILED;
    if (!bf_ctl_call(ctl, "GET", "/admin/backup", NULL, &reply))
        return false;
    yyjson_val *root = yyjson_doc_get_root(reply.json);
    const char *state = bf_json_text(root, "state");
    uint64_t done = bf_json_number(root, "bytes_done");
    show(ctl, "copied", done, bf_json_number(root, "bytes_total"));
    bool goes_on = strcmp(state, "running") == 0;
    bool is_ours = strcmp(bf_json_text(root, "destination"), dest) == 0;
    if (!goes_on && !ctl->is_json)
        fputc('\n', stderr);
    if (!goes_on && is_ours && strcmp(state, "done") == 0) {
        *ret_code = BF_CTL_OK;
        if (ctl->is_json)
            bf_ctl_print_body(&reply);
        else
            printf("%s: the state of %.*sZ, %llu files, %llu MiB\n", dest,
                   BF_CUT(bf_json_text(root, "instant"), 19),
                   (unsigned long long)bf_json_number(root, "files"),
                   (unsigned long long)(done / MIB));
    } else if (!goes_on) {
        const char *error = bf_json_text(root, "error");
        bf_ctl_fail(BF_CTL_FAILED, "no backup was made: %s",
                    error[0] ? error : "the node started over meanwhile; ask again");
    }
    bf_reply_free(&reply);
    return goes_on;
}

int bf_ctl_backup(struct bf_ctl *ctl, struct bf_args *args)
{
    char dest[BF_BACKUP_PATH_MAX];
    const char *given = bf_args_word(args);
    if (!bf_args_done(args))
        return BF_CTL_USAGE;
    if (!given || !absolute(given, dest))
        return bf_ctl_fail(BF_CTL_USAGE,
                           "backup DEST: DEST is a directory that does not exist yet");
    int code = begin_backup(ctl, dest);
    while (code == BF_CTL_OK && follow_backup(ctl, dest, &code)) {
        code = BF_CTL_OK;
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
    return code;
}

/* ---- restore ---- */

/* True when RocksDB of a living process has this database open: belfry-dev takes no lock in
 * node.run_dir. */
static bool is_open_elsewhere(const char *state_dir, const char *database)
{
    char path[BF_BACKUP_PATH_MAX];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    snprintf(path, sizeof(path), "%s/%s/LOCK", state_dir, database);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool is_held = fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return is_held;
}

/* The control process's lock, held while we work, so that none starts. */
static int own_node(const struct bf_ctl *ctl)
{
    const struct bf_conf *conf = ctl->conf;
    mkdir(conf->run_dir, 0700);
    int fd = bf_own_take(conf->run_dir, BF_OWN_CTRLPLANE);
    if (fd == BF_ERR_OWNED || (fd >= 0 && (is_open_elsewhere(conf->state_dir, "store") ||
                                           is_open_elsewhere(conf->state_dir, "log"))))
        return bf_ctl_fail(-1,
                           "the node runs: stop its control process first. The dataplane may go on;"
                           " its sockets are told to come back");
    if (fd < 0)
        return bf_ctl_fail(-1, "cannot lock in %s: %s", conf->run_dir, bf_err_text(fd));
    return fd;
}

/* Files and directories that a restore replaces: all but our own. */
static bool is_replaced(const char *name)
{
    return name[0] != '.' && strcmp(name, BF_RESTORING) != 0;
}

static int move_all(const char *from, const char *to, uint32_t *ret_count)
{
    char a[2 * BF_BACKUP_PATH_MAX], b[2 * BF_BACKUP_PATH_MAX];
    struct dirent *entry;
    DIR *dir = opendir(from);
    int rc = dir ? 0 : -errno;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        if (!is_replaced(entry->d_name))
            continue;
        snprintf(a, sizeof(a), "%s/%s", from, entry->d_name);
        snprintf(b, sizeof(b), "%s/%s", to, entry->d_name);
        if (rename(a, b) != 0)
            rc = -errno;
        else
            ++*ret_count;
    }
    if (dir)
        closedir(dir);
    return rc == 0 ? bf_backup_sync_dir(to) : rc;
}

static int make_file(const char *dir, const char *name)
{
    char path[2 * BF_BACKUP_PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return rc == 0 ? bf_backup_sync_dir(dir) : rc;
}

/* push.device_key_file is restored to where the configuration says; a file that is there already is
 * kept beside it. */
static int put_key(const struct bf_conf *conf, const char *incoming, const char *stamp)
{
    char from[2 * BF_BACKUP_PATH_MAX], kept[BF_BACKUP_PATH_MAX];
    const char *to = conf->push_device_key_file;
    char text[256], old[256];
    size_t len = 0;
    snprintf(from, sizeof(from), "%s/device.key", incoming);
    FILE *file = to[0] ? fopen(from, "re") : NULL;
    if (!file)
        return 0;
    len = fread(text, 1, sizeof(text), file);
    fclose(file);
    file = fopen(to, "re");
    size_t old_len = file ? fread(old, 1, sizeof(old), file) : 0;
    if (file)
        fclose(file);
    if (old_len == len && memcmp(old, text, len) == 0)
        return unlink(from) == 0 ? 0 : -errno;
    snprintf(kept, sizeof(kept), "%s" BEFORE_PREFIX "%s", to, stamp);
    if (file && rename(to, kept) != 0)
        return -errno;
    int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, text, len) == (ssize_t)len && fsync(fd) == 0;
    int rc = ok ? 0 : -errno;
    if (fd >= 0)
        close(fd);
    return rc == 0 && unlink(from) != 0 ? -errno : rc;
}

/* The former state moves aside, the new one in. Killed in between, RESTORING stays, and the same
 * call again goes through. */
static int swap(const struct bf_conf *conf, const char *incoming, char *before, size_t before_len,
                uint32_t *ret_kept)
{
    char stamp[32], store[2 * BF_BACKUP_PATH_MAX], path[2 * BF_BACKUP_PATH_MAX];
    struct tm tm;
    time_t now = time(NULL);
    uint32_t moved = 0;
    strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
    snprintf(before, before_len, "%s/" BEFORE_PREFIX "%s", conf->state_dir, stamp);
    snprintf(store, sizeof(store), "%s/store", incoming);
    int rc = make_file(store, "RESTORED"); /* the store begins an epoch, see epoch.c */
    if (rc == 0)
        rc = make_file(conf->state_dir, BF_RESTORING);
    if (rc == 0 && mkdir(before, 0700) != 0 && errno != EEXIST)
        rc = -errno;
    if (rc == 0)
        rc = move_all(conf->state_dir, before, ret_kept);
    if (rc == 0)
        rc = put_key(conf, incoming, stamp);
    if (rc == 0)
        rc = move_all(incoming, conf->state_dir, &moved);
    snprintf(path, sizeof(path), "%s/" BF_RESTORING, conf->state_dir);
    if (rc == 0 && unlink(path) != 0)
        rc = -errno;
    if (rc == 0)
        rc = bf_backup_sync_dir(conf->state_dir);
    if (rc == 0)
        bf_backup_remove(incoming);
    if (rc == 0 && *ret_kept == 0)
        bf_backup_remove(before);
    return rc;
}

static void say_restored(const struct bf_ctl *ctl, const struct bf_backup_info *info,
                         const char *before, bool was_check)
{
    struct bf_out o = {0};
    size_t len;
    bf_out_print(&o, "{\"%s\":true,\"instant\":", was_check ? "verified" : "restored");
    bf_out_time(&o, info->created_ms);
    bf_out_print(&o, ",\"files\":%u,\"bytes\":%llu,\"epoch\":\"%s\",\"engine\":\"%s\",\"former\":",
                 info->files, (unsigned long long)info->bytes, info->epoch, info->engine);
    bf_out_cstr(&o, before);
    bf_out_text(&o, "}");
    char *json = bf_out_take(&o, &len);
    if (ctl->is_json && json) {
        puts(json);
    } else {
        printf("%s: %u files, %llu MiB\n", was_check ? "the backup is whole" : "restored",
               info->files, (unsigned long long)(info->bytes / MIB));
        if (before[0])
            printf("the former state is in %s; delete it when you are sure. Erasures of after the "
                   "backup"
                   " have to be done again\n",
                   before);
    }
    free(json);
}

static int restore(struct bf_ctl *ctl, const char *src)
{
    char incoming[BF_BACKUP_PATH_MAX], before[BF_BACKUP_PATH_MAX] = "", err[512] = "";
    struct bf_backup_progress progress = {0};
    struct bf_backup_info info;
    uint32_t kept = 0;
    const struct bf_conf *conf = ctl->conf;
    mkdir(conf->state_dir, 0700);
    snprintf(incoming, sizeof(incoming), "%s/" INCOMING, conf->state_dir);
    bf_backup_remove(incoming);
    int rc = bf_backup_unpack(src, incoming, &info, &progress, err, sizeof(err));
    if (rc != 0)
        return bf_ctl_fail(BF_CTL_FAILED, "%s. The node's state is as it was",
                           err[0] ? err : bf_err_text(rc));
    if (strcmp(info.engine, conf->log_engine) != 0) {
        bf_backup_remove(incoming);
        return bf_ctl_fail(BF_CTL_FAILED,
                           "the backup is of a node with log.engine: %s, the configuration"
                           " says %s",
                           info.engine, conf->log_engine);
    }
    rc = swap(conf, incoming, before, sizeof(before), &kept);
    if (rc != 0)
        return bf_ctl_fail(
            BF_CTL_FAILED,
            "cannot put the backup in place: %s. Parts are moved; the node"
            " does not start before the same call has gone through. The former state is"
            " in %s",
            bf_err_text(rc), before);
    say_restored(ctl, &info, kept > 0 ? before : "", false);
    return BF_CTL_OK;
}

static int check(struct bf_ctl *ctl, const char *src)
{
    char err[512] = "";
    struct bf_backup_progress progress = {0};
    struct bf_backup_info info;
    int rc = bf_backup_verify(src, &info, &progress, err, sizeof(err));
    if (rc != 0)
        return bf_ctl_fail(BF_CTL_FAILED, "%s", err[0] ? err : bf_err_text(rc));
    say_restored(ctl, &info, "", true);
    return BF_CTL_OK;
}

int bf_ctl_restore(struct bf_ctl *ctl, struct bf_args *args)
{
    bool check_only = bf_args_flag(args, "check");
    const char *src = bf_args_word(args);
    if (!bf_args_done(args))
        return BF_CTL_USAGE;
    if (!src)
        return bf_ctl_fail(BF_CTL_USAGE,
                           "restore SRC: SRC is a directory that belfryctl backup made");
    if (check_only)
        return check(ctl, src);
    int lock = own_node(ctl);
    if (lock < 0)
        return BF_CTL_FAILED;
    int code = restore(ctl, src);
    close(lock);
    return code;
}
