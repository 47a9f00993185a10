/* See backup.h. */
#include "backup/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <xxhash.h>

#include "belfry/base/text.h"
#include "belfry/base/err.h"

#define MANIFEST "MANIFEST.belfry"
#define FORMAT   "belfry-backup 1"
/* A file is copied in pieces of this size: few system calls, little memory, a cancel is soon seen.
 */
#define PIECE_BYTES (256u * 1024u)
/* Descriptors that the removal of a directory may use. */
#define REMOVE_DEPTH 8
#define LINE_BYTES   (BF_BACKUP_PATH_MAX + 64u)

/* One copy or check under way. */
struct job {
    struct bf_backup_progress *progress;
    char *err;
    size_t err_len;
    char *piece;
    FILE *manifest; /* being written; NULL while a backup is read */
    struct bf_backup_info *info;
};

__attribute__((format(printf, 3, 4))) static int fail(struct job *j, int rc, const char *format,
                                                      ...)
{
    va_list args;
    va_start(args, format);
    bf_vformat(j->err, j->err_len, format, args);
    va_end(args);
    return rc;
}

static int join(char out[BF_BACKUP_PATH_MAX], const char *dir, const char *name)
{
    int n = snprintf(out, BF_BACKUP_PATH_MAX, "%s%s%s", dir, name[0] ? "/" : "", name);
    return n > 0 && (size_t)n < BF_BACKUP_PATH_MAX ? 0 : -ENAMETOOLONG;
}

int bf_backup_sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return rc;
}

static int remove_entry(const char *path, const struct stat *s, int kind, struct FTW *at)
{
    (void)s, (void)kind, (void)at;
    return remove(path);
}

int bf_backup_remove(const char *dir)
{
    if (nftw(dir, remove_entry, REMOVE_DEPTH, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT)
        return 0;
    return -errno;
}

/* ---- one file ---- */

static int write_all(int fd, const char *at, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENOSPC;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Reads |in| to its end, into |out| unless that is -1. */
static int pump(struct job *j, int in, int out, uint64_t *ret_bytes, uint64_t *ret_hash)
{
    int rc = 0;
    ssize_t n = 1;
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL)
        return -ENOMEM;
    XXH3_64bits_reset(state);
    *ret_bytes = 0;
    while (rc == 0 && n > 0) {
        n = read(in, j->piece, PIECE_BYTES);
        if (n < 0) {
            rc = -errno;
        } else if (n > 0) {
            XXH3_64bits_update(state, j->piece, (size_t)n);
            *ret_bytes += (uint64_t)n;
            rc = out >= 0 ? write_all(out, j->piece, (size_t)n) : 0;
            atomic_fetch_add_explicit(&j->progress->done, (uint64_t)n, memory_order_relaxed);
        }
        if (atomic_load_explicit(&j->progress->is_cancelled, memory_order_relaxed))
            rc = -ECANCELED;
    }
    *ret_hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return rc;
}

static int copy_file(struct job *j, const char *from, const char *to, uint64_t *ret_bytes,
                     uint64_t *ret_hash)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return fail(j, -errno, "cannot read %s: %s", from, strerror(errno));
    int out = to ? open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    int rc = to && out < 0 ? -errno : pump(j, in, out, ret_bytes, ret_hash);
    if (rc == 0 && to && fsync(out) != 0)
        rc = -errno;
    if (out >= 0)
        close(out);
    close(in);
    if (rc != 0)
        fail(j, rc, "cannot %s %s: %s", to ? "write" : "read", to ? to : from, bf_err_text(rc));
    return rc;
}

/* ---- writing ---- */

static int put_file(struct job *j, const char *from, const char *dest, const char *name)
{
    char to[BF_BACKUP_PATH_MAX];
    uint64_t bytes = 0, hash = 0;
    int rc = join(to, dest, name);
    if (rc == 0)
        rc = copy_file(j, from, to, &bytes, &hash);
    if (rc == 0)
        fprintf(j->manifest, "file %" PRIu64 " %016" PRIx64 " %s\n", bytes, hash, name);
    j->info->files++;
    j->info->bytes += bytes;
    return rc;
}

/* Calls |each| with every regular file of a part: its path, and its name in the backup. */
static int walk_part(const struct bf_backup_part *part,
                     int (*each)(void *arg, const char *path, const char *name), void *arg)
{
    char path[BF_BACKUP_PATH_MAX], name[BF_BACKUP_PATH_MAX];
    struct stat s;
    struct dirent *entry;
    if (stat(part->from, &s) != 0)
        return -errno;
    if (S_ISREG(s.st_mode))
        return each(arg, part->from, part->to);
    DIR *dir = opendir(part->from);
    if (dir == NULL)
        return -errno;
    int rc = 0;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        rc = join(path, part->from, entry->d_name);
        if (rc == 0)
            rc = join(name, part->to, entry->d_name);
        if (rc == 0 && stat(path, &s) == 0 && S_ISREG(s.st_mode))
            rc = each(arg, path, name);
    }
    closedir(dir);
    return rc;
}

static int add_size(void *arg, const char *path, const char *name)
{
    struct bf_backup_progress *progress = arg;
    struct stat s;
    (void)name;
    if (stat(path, &s) == 0)
        atomic_fetch_add_explicit(&progress->total, (uint64_t)s.st_size, memory_order_relaxed);
    return 0;
}

struct put {
    struct job *job;
    const char *dest;
};

static int put_each(void *arg, const char *path, const char *name)
{
    struct put *p = arg;
    return put_file(p->job, path, p->dest, name);
}

static int put_part(struct job *j, const struct bf_backup_part *part, const char *dest)
{
    char dir[BF_BACKUP_PATH_MAX];
    struct stat s;
    struct put p = {j, dest};
    int rc = join(dir, dest, part->to);
    bool is_dir = rc == 0 && stat(part->from, &s) == 0 && S_ISDIR(s.st_mode);
    if (is_dir && mkdir(dir, 0700) != 0)
        return fail(j, -errno, "cannot make %s: %s", dir, strerror(errno));
    if (rc == 0)
        rc = walk_part(part, put_each, &p);
    if (rc == 0 && is_dir)
        rc = bf_backup_sync_dir(dir);
    if (rc != 0 && j->err[0] == 0)
        fail(j, rc, "cannot copy %s: %s", part->from, bf_err_text(rc));
    return rc;
}

/* The last line of a complete manifest. */
static int end_manifest(struct job *j)
{
    fprintf(j->manifest, "end %u\n", j->info->files);
    bool ok = !ferror(j->manifest) && fflush(j->manifest) == 0 && fsync(fileno(j->manifest)) == 0;
    int rc = ok ? 0 : -errno;
    if (fclose(j->manifest) != 0 && rc == 0)
        rc = -errno;
    j->manifest = NULL;
    return rc == 0 ? 0 : fail(j, rc, "cannot write the backup's " MANIFEST ": %s", bf_err_text(rc));
}

static int fill(struct job *j, const struct bf_backup_part *parts, uint32_t count, const char *dest)
{
    char path[BF_BACKUP_PATH_MAX];
    int rc = join(path, dest, MANIFEST);
    if (rc == 0 && mkdir(dest, 0700) != 0)
        rc = -errno;
    if (rc == 0 && (j->manifest = fopen(path, "wxe")) == NULL)
        rc = -errno;
    if (rc != 0)
        return fail(j, rc, "cannot make %s: %s", dest, bf_err_text(rc));
    fprintf(j->manifest, FORMAT "\ncreated %" PRIu64 "\nepoch %s\nengine %s\n", j->info->created_ms,
            j->info->epoch, j->info->engine);
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = put_part(j, &parts[i], dest);
    if (rc == 0)
        rc = end_manifest(j);
    else
        fclose(j->manifest);
    return rc == 0 ? bf_backup_sync_dir(dest) : rc;
}

static int check_room(struct job *j, const char *parent, uint64_t spare)
{
    struct statvfs fs;
    /* relaxed: our own number */
    uint64_t total = atomic_load_explicit(&j->progress->total, memory_order_relaxed);
    if (statvfs(parent, &fs) != 0)
        return fail(j, -errno, "cannot look at %s: %s. Make the directory first", parent,
                    strerror(errno));
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (room >= total + spare)
        return 0;
    return fail(j, -ENOSPC,
                "the backup takes %" PRIu64 " MiB and %" PRIu64 " MiB are to stay free, but %s has"
                " room for %" PRIu64 " MiB",
                total >> 20, spare >> 20, parent, room >> 20);
}

static void parent_of(const char *path, char out[BF_BACKUP_PATH_MAX])
{
    snprintf(out, BF_BACKUP_PATH_MAX, "%s", path);
    char *slash = strrchr(out, '/');
    if (slash == NULL)
        snprintf(out, BF_BACKUP_PATH_MAX, ".");
    else
        slash[slash == out] = 0;
}

int bf_backup_write(const struct bf_backup_part *parts, uint32_t count, const char *dest,
                    uint64_t spare, struct bf_backup_info *info,
                    struct bf_backup_progress *progress, char *err, size_t err_len)
{
    char partial[BF_BACKUP_PATH_MAX], parent[BF_BACKUP_PATH_MAX];
    struct job j = {.progress = progress, .err = err, .err_len = err_len, .info = info};
    int n = snprintf(partial, sizeof(partial), "%s" BF_BACKUP_PARTIAL, dest);
    err[0] = 0;
    if (n <= 0 || (size_t)n >= sizeof(partial))
        return fail(&j, -ENAMETOOLONG, "the destination's name is too long");
    if (access(dest, F_OK) == 0)
        return fail(&j, -EEXIST, "%s exists already: name a directory that does not", dest);
    parent_of(dest, parent);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        if ((rc = walk_part(&parts[i], add_size, progress)) != 0)
            fail(&j, rc, "cannot read %s: %s", parts[i].from, bf_err_text(rc));
    if (rc == 0)
        rc = check_room(&j, parent, spare);
    if (rc != 0)
        return rc;
    bf_backup_remove(partial); /* of a node that died over it */
    j.piece = malloc(PIECE_BYTES);
    rc = j.piece ? fill(&j, parts, count, partial) : -ENOMEM;
    free(j.piece);
    if (rc == 0 && rename(partial, dest) != 0)
        rc = fail(&j, -errno, "cannot name the backup %s: %s", dest, strerror(errno));
    if (rc == 0)
        rc = bf_backup_sync_dir(parent);
    else
        bf_backup_remove(partial);
    return rc;
}

/* ---- reading ---- */

/* A name that stays inside: "store/000012.sst", never "../x" or "/x". */
static bool is_inside(const char *name)
{
    return name[0] != '/' && name[0] != 0 && strstr(name, "..") == NULL;
}

static int make_parents(const char *path)
{
    char dir[BF_BACKUP_PATH_MAX];
    parent_of(path, dir);
    return mkdir(dir, 0700) == 0 || errno == EEXIST ? 0 : -errno;
}

static int take_file(struct job *j, const char *src, const char *dest, uint64_t bytes,
                     uint64_t hash, const char *name)
{
    char from[BF_BACKUP_PATH_MAX], to[BF_BACKUP_PATH_MAX];
    uint64_t is_bytes = 0, is_hash = 0;
    if (!is_inside(name) || join(from, src, name) != 0 ||
        (dest != NULL && join(to, dest, name) != 0))
        return fail(j, BF_ERR_MALFORMED, "the backup's " MANIFEST " names %s", name);
    int rc = dest ? make_parents(to) : 0;
    if (rc != 0)
        return fail(j, rc, "cannot write %s: %s", to, bf_err_text(rc));
    rc = copy_file(j, from, dest ? to : NULL, &is_bytes, &is_hash);
    if (rc == -ENOENT)
        return fail(j, BF_ERR_CORRUPT, "the backup lacks %s", name);
    if (rc == 0 && (is_bytes != bytes || is_hash != hash))
        return fail(j, BF_ERR_CORRUPT,
                    "%s is not what was backed up: %" PRIu64 " bytes of %" PRIu64 "%s", name,
                    is_bytes, bytes, is_bytes == bytes ? ", with another checksum" : "");
    j->info->files++;
    j->info->bytes += bytes;
    return rc;
}

static int read_head(struct job *j, FILE *manifest)
{
    char line[LINE_BYTES];
    if (fgets(line, sizeof(line), manifest) == NULL || strcmp(line, FORMAT "\n") != 0)
        return fail(j, BF_ERR_UNSUPPORTED,
                    "the backup's " MANIFEST " does not begin with \"" FORMAT "\": another version"
                    " made it");
    if (fscanf(manifest, "created %" SCNu64 " epoch %39s engine %15s ", &j->info->created_ms,
               j->info->epoch, j->info->engine) != 3)
        return fail(j, BF_ERR_MALFORMED, "the backup's " MANIFEST " is damaged");
    return 0;
}

/* All lines: first to see that the manifest is whole, then with |use| to take each file. */
static int read_lines(struct job *j, FILE *manifest, const char *src, const char *dest, bool use)
{
    char line[LINE_BYTES], name[BF_BACKUP_PATH_MAX];
    uint64_t bytes, hash;
    unsigned files = 0, end = 0;
    int rc = 0;
    bool is_whole = false;
    while (rc == 0 && !is_whole && fgets(line, sizeof(line), manifest) != NULL) {
        if (sscanf(line, "file %" SCNu64 " %" SCNx64 " %639[^\n]", &bytes, &hash, name) == 3) {
            files++;
            if (use)
                rc = take_file(j, src, dest, bytes, hash, name);
            else
                atomic_fetch_add_explicit(&j->progress->total, bytes, memory_order_relaxed);
        } else if (sscanf(line, "end %u", &end) == 1 && end == files) {
            is_whole = true;
        } else {
            break;
        }
    }
    if (rc == 0 && !is_whole)
        rc = fail(j, BF_ERR_MALFORMED, "the backup's " MANIFEST " is cut off or damaged");
    return rc;
}

static int read_backup(const char *src, const char *dest, struct bf_backup_info *ret,
                       struct bf_backup_progress *progress, char *err, size_t err_len)
{
    char path[BF_BACKUP_PATH_MAX];
    struct job j = {.progress = progress, .err = err, .err_len = err_len, .info = ret};
    *ret = (struct bf_backup_info){0};
    err[0] = 0;
    FILE *manifest = join(path, src, MANIFEST) == 0 ? fopen(path, "re") : NULL;
    if (manifest == NULL)
        return fail(&j, BF_ERR_MALFORMED,
                    "%s is no complete backup: it has no " MANIFEST ", which is written last", src);
    j.piece = malloc(PIECE_BYTES);
    int rc = j.piece ? read_head(&j, manifest) : -ENOMEM;
    long files_at = ftell(manifest);
    if (rc == 0)
        rc = read_lines(&j, manifest, src, dest, false);
    if (rc == 0 && fseek(manifest, files_at, SEEK_SET) == 0)
        rc = read_lines(&j, manifest, src, dest, true);
    free(j.piece);
    fclose(manifest);
    return rc;
}

int bf_backup_verify(const char *src, struct bf_backup_info *ret,
                     struct bf_backup_progress *progress, char *err, size_t err_len)
{
    return read_backup(src, NULL, ret, progress, err, err_len);
}

int bf_backup_unpack(const char *src, const char *dest, struct bf_backup_info *ret,
                     struct bf_backup_progress *progress, char *err, size_t err_len)
{
    if (mkdir(dest, 0700) != 0) {
        snprintf(err, err_len, "cannot make %s: %s", dest, strerror(errno));
        return -errno;
    }
    int rc = read_backup(src, dest, ret, progress, err, err_len);
    if (rc != 0)
        bf_backup_remove(dest);
    return rc;
}
