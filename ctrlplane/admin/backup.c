/*
 * Backup of a running node (docs/BACKUP.md). Checkpoints of store and log are made beside them by
 * hard links, which takes a moment: that moment is what the backup holds. Then a thread copies
 * them, so that the backup shares nothing with the state, and they are dropped. The store's
 * checkpoint is first: the log's holds every event that it does not.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <yyjson.h>

#include "admin/admin_impl.h"
#include "backup/backup.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf.h"

#define DEVICE_KEY "device.key"

enum backup_state { BACKUP_NONE, BACKUP_RUNNING, BACKUP_DONE, BACKUP_FAILED };
static const char *const state_names[] = {"none", "running", "done", "failed"};

struct bf_backup_job {
    struct bf_services *services;
    pthread_mutex_t lock; /* all below but |progress| */
    pthread_t thread;
    bool has_thread;
    enum backup_state state;
    char dest[BF_BACKUP_PATH_MAX];
    char error[512];
    struct bf_backup_info info;
    struct bf_backup_progress progress;
};

struct bf_backup_job *bf_backup_job_create(struct bf_services *services)
{
    struct bf_backup_job *job = calloc(1, sizeof(*job));
    if (!job)
        return NULL;
    job->services = services;
    pthread_mutex_init(&job->lock, NULL);
    return job;
}

void bf_backup_job_destroy(struct bf_backup_job *job)
{
    if (!job)
        return;
    atomic_store(&job->progress.is_cancelled, true);
    if (job->has_thread)
        pthread_join(job->thread, NULL);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

/* ---- what belongs to the state ---- */

/* One backup under way: its parts, and where its checkpoints are. */
struct plan {
    struct bf_backup_job *job;
    const struct bf_conf *conf;
    char checkpoints[BF_BACKUP_PATH_MAX - 64];
    char *err;
    size_t err_len;
    uint32_t count;
    struct bf_backup_part parts[BF_BACKUP_PARTS_MAX];
};

static bool add_part(struct plan *p, const char *dir, const char *name, const char *to)
{
    if (p->count == BF_BACKUP_PARTS_MAX)
        return false;
    struct bf_backup_part *part = &p->parts[p->count];
    int n = snprintf(part->from, sizeof(part->from), "%s%s%s", dir, name[0] ? "/" : "", name);
    int m = snprintf(part->to, sizeof(part->to), "%s", to);
    if (n <= 0 || (size_t)n >= sizeof(part->from) || (size_t)m >= sizeof(part->to))
        return false;
    p->count++;
    return true;
}

/* Files that lie in the state directory itself: keys and whatever else a version keeps there. */
static int add_files(struct plan *p)
{
    char path[BF_BACKUP_PATH_MAX];
    struct stat s;
    struct dirent *entry;
    DIR *dir = opendir(p->conf->state_dir);
    int rc = dir ? 0 : -errno;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        int n = snprintf(path, sizeof(path), "%s/%s", p->conf->state_dir, entry->d_name);
        if (n <= 0 || (size_t)n >= sizeof(path) || entry->d_name[0] == '.' || stat(path, &s) != 0 ||
            !S_ISREG(s.st_mode))
            continue;
        if (!add_part(p, p->conf->state_dir, entry->d_name, entry->d_name))
            rc = BF_ERR_TOO_LARGE;
    }
    if (dir)
        closedir(dir);
    if (rc == 0 && p->conf->push_device_key_file[0] &&
        !add_part(p, p->conf->push_device_key_file, "", DEVICE_KEY))
        rc = BF_ERR_TOO_LARGE;
    if (rc != 0)
        snprintf(p->err, p->err_len, "cannot list the files of %s: %s", p->conf->state_dir,
                 bf_err_text(rc));
    return rc;
}

static int checkpoint_store(void *arg)
{
    struct plan *p = arg;
    char dir[BF_BACKUP_PATH_MAX];
    snprintf(dir, sizeof(dir), "%s/store", p->checkpoints);
    int rc = bf_store_checkpoint(p->job->services->store, dir, p->err, p->err_len);
    if (rc == 0 && !add_part(p, dir, "", "store"))
        rc = BF_ERR_TOO_LARGE;
    return rc;
}

static int make_checkpoints(struct plan *p)
{
    char dir[BF_BACKUP_PATH_MAX];
    bf_backup_remove(p->checkpoints); /* of a backup that was killed */
    if (mkdir(p->checkpoints, 0700) != 0) {
        snprintf(p->err, p->err_len, "cannot make %s: %s", p->checkpoints, strerror(errno));
        return -errno;
    }
    snprintf(dir, sizeof(dir), "%s/log", p->checkpoints);
    int rc = bf_log_checkpoint(p->job->services->log, dir, checkpoint_store, p, p->err, p->err_len);
    p->job->info.created_ms = bf_wall_ms();
    struct stat s;
    if (rc == 0 && stat(dir, &s) == 0 && !add_part(p, dir, "", "log"))
        rc = BF_ERR_TOO_LARGE;
    return rc;
}

/* What a backup on the node's own file system leaves free, so that ingest does not close. */
static uint64_t spare_bytes(const struct plan *p)
{
    char parent[BF_BACKUP_PATH_MAX];
    struct stat ours, theirs;
    snprintf(parent, sizeof(parent), "%s", p->job->dest);
    *(strrchr(parent, '/') + 1) = 0; /* the destination is absolute */
    if (stat(p->conf->state_dir, &ours) != 0 || stat(parent, &theirs) != 0 ||
        ours.st_dev != theirs.st_dev)
        return 0;
    return (uint64_t)p->conf->log_disk_reserve_mb << 20;
}

static int back_up(struct bf_backup_job *job, char *err, size_t err_len)
{
    struct plan p = {.job = job, .conf = atomic_load(&job->services->conf)};
    p.err = err;
    p.err_len = err_len;
    snprintf(p.checkpoints, sizeof(p.checkpoints), "%s/" BF_CHECKPOINTS, p.conf->state_dir);
    snprintf(job->info.epoch, sizeof(job->info.epoch), "%s", bf_store_epoch(job->services->store));
    snprintf(job->info.engine, sizeof(job->info.engine), "%s", p.conf->log_engine);
    int rc = add_files(&p);
    if (rc == 0)
        rc = make_checkpoints(&p);
    if (rc == 0)
        rc = bf_backup_write(p.parts, p.count, job->dest, spare_bytes(&p), &job->info,
                             &job->progress, err, err_len);
    bf_backup_remove(p.checkpoints);
    return rc;
}

static void *backup_main(void *arg)
{
    struct bf_backup_job *job = arg;
    char err[512] = "";
    prctl(PR_SET_NAME, "bf-backup");
    int rc = back_up(job, err, sizeof(err));
    pthread_mutex_lock(&job->lock);
    job->state = rc == 0 ? BACKUP_DONE : BACKUP_FAILED;
    snprintf(job->error, sizeof(job->error), "%s", rc == 0 ? "" : err[0] ? err : bf_err_text(rc));
    pthread_mutex_unlock(&job->lock);
    if (rc == 0)
        BF_INFO("ctrlplane", "backup: %s is complete", job->dest);
    else
        BF_ERROR("ctrlplane", "backup: %s", err[0] ? err : bf_err_text(rc));
    return NULL;
}

/* ---- the calls ---- */

/* Starts the thread; false: one is running. */
static bool begin(struct bf_backup_job *job, const char *dest)
{
    pthread_mutex_lock(&job->lock);
    bool is_free = job->state != BACKUP_RUNNING;
    if (is_free) {
        if (job->has_thread)
            pthread_join(job->thread, NULL); /* it has ended */
        snprintf(job->dest, sizeof(job->dest), "%s", dest);
        job->error[0] = 0;
        job->info = (struct bf_backup_info){0};
        atomic_store(&job->progress.done, 0);
        atomic_store(&job->progress.total, 0);
        job->state = BACKUP_RUNNING;
        job->has_thread = pthread_create(&job->thread, NULL, backup_main, job) == 0;
        if (!job->has_thread) {
            job->state = BACKUP_FAILED;
            snprintf(job->error, sizeof(job->error), "no thread could be started");
        }
    }
    pthread_mutex_unlock(&job->lock);
    return is_free;
}

static void put_job(struct bf_request *r, struct bf_backup_job *job, int status)
{
    struct bf_out o = {0};
    pthread_mutex_lock(&job->lock);
    bf_out_print(&o, "{\"state\":\"%s\",\"destination\":", state_names[job->state]);
    bf_out_cstr(&o, job->dest);
    bf_out_print(&o, ",\"bytes_done\":%llu,\"bytes_total\":%llu",
                 (unsigned long long)atomic_load(&job->progress.done),
                 (unsigned long long)atomic_load(&job->progress.total));
    if (job->state == BACKUP_DONE) {
        bf_out_print(&o, ",\"files\":%u,\"epoch\":\"%s\",\"instant\":", job->info.files,
                     job->info.epoch);
        bf_out_time(&o, job->info.created_ms);
    }
    if (job->state == BACKUP_FAILED) {
        bf_out_text(&o, ",\"error\":");
        bf_out_cstr(&o, job->error);
    }
    pthread_mutex_unlock(&job->lock);
    bf_out_text(&o, "}");
    bf_answer_json(r, status, &o);
}

void bf_admin_begin_backup(struct bf_request *r)
{
    if (!bf_admin_is_operator(r))
        return;
    struct bf_backup_job *job = bf_admin_of(r)->backup;
    yyjson_doc *doc = yyjson_read(r->body ? r->body : "", r->body_len, 0);
    yyjson_val *val = yyjson_obj_get(yyjson_doc_get_root(doc), "destination");
    const char *dest = yyjson_get_str(val);
    size_t len = yyjson_get_len(val);
    /* room for what a partial one is named, and for the names of its files */
    bool ok = dest && dest[0] == '/' && strlen(dest) == len && len > 1 && dest[len - 1] != '/' &&
              len < BF_BACKUP_PATH_MAX - 128;
    if (!ok)
        bf_answer_fail(r, 400, "destination", "destination",
                       "the destination is the absolute path of a new directory on the node's "
                       "machine, up to 511 bytes");
    else if (!begin(job, dest))
        bf_answer_fail(r, 409, "backup-running", "destination",
                       "a backup is being made; GET /admin/backup says how far it is");
    else
        put_job(r, job, 202);
    yyjson_doc_free(doc);
}

void bf_admin_show_backup(struct bf_request *r)
{
    if (!bf_admin_is_operator(r))
        return;
    put_job(r, bf_admin_of(r)->backup, 200);
}
