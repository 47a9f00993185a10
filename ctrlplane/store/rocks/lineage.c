/* See lineage.h. Both files are one line of text of a fixed length, so that writing over it in
 * place never leaves half of a longer one. */
#include "store/rocks/lineage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STAMP_NAME   "STARTED"
#define WITNESS_NAME "store.witness"
/* RocksDB makes these once, or replaces them by rename: none is written again after it was copied.
 */
static const char *const rocks_files[] = {"IDENTITY", "CURRENT"};

/* The files are written and renamed within microseconds, so content and inode change together. A
 * copy that is given the old time of its content changes its inode now. */
#define CHANGE_SLACK_NS INT64_C(1000000000)

#define STAMP_FORMAT "belfry-stamp 1 %016" PRIx64 " %016" PRIx64 " %020" PRIu64 " %020" PRIu64 "\n"
#define STAMP_SCAN   "belfry-stamp 1 %16" SCNx64 " %16" SCNx64 " %20" SCNu64 " %20" SCNu64
#define WITNESS_FORMAT                                                                             \
    "belfry-witness 1 %016" PRIx64 " %010" PRIu32 " %020" PRIu64 " %020" PRIu64 " %020" PRIu64 "\n"
#define WITNESS_SCAN                                                                               \
    "belfry-witness 1 %16" SCNx64 " %10" SCNu32 " %20" SCNu64 " %20" SCNu64 " %20" SCNu64
#define LINE_BYTES_MAX 160u
#define PATH_BYTES_MAX 640u

/* What a file is, apart from its content. Birth is 0 where the file system does not tell: then the
 * inode's number alone has to do. */
struct identity {
    uint64_t inode, born_ns;
    int64_t written_ns, changed_ns;
};

static int64_t ns_of(struct statx_timestamp t)
{
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static bool identify(int dir_fd, const char *path, int flags, struct identity *ret)
{
    struct statx s;
    if (statx(dir_fd, path, flags, STATX_BASIC_STATS | STATX_BTIME, &s) != 0)
        return false;
    *ret = (struct identity){
        .inode = s.stx_ino, .written_ns = ns_of(s.stx_mtime), .changed_ns = ns_of(s.stx_ctime)};
    if (s.stx_mask & STATX_BTIME)
        ret->born_ns = (uint64_t)ns_of(s.stx_btime);
    return true;
}

static bool is_untouched(const struct identity *now, uint64_t inode, uint64_t born_ns)
{
    int64_t apart = now->changed_ns - now->written_ns;
    return now->inode == inode && now->born_ns == born_ns && apart <= CHANGE_SLACK_NS &&
           apart >= -CHANGE_SLACK_NS;
}

static int path_in(const char *dir, const char *name, char path[PATH_BYTES_MAX])
{
    int n = snprintf(path, PATH_BYTES_MAX, "%s/%s", dir, name);
    return n > 0 && (size_t)n < PATH_BYTES_MAX ? 0 : -ENAMETOOLONG;
}

/* The line and what its file is. False: there is no such file, or it cannot be read. */
static bool read_line(const char *dir, const char *name, char line[LINE_BYTES_MAX],
                      struct identity *ret)
{
    char path[PATH_BYTES_MAX];
    if (path_in(dir, name, path) != 0)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, line, LINE_BYTES_MAX - 1);
    bool ok = n > 0 && identify(fd, "", AT_EMPTY_PATH, ret);
    line[n > 0 ? n : 0] = 0;
    close(fd);
    return ok;
}

static size_t print_stamp(char line[LINE_BYTES_MAX], const struct bf_stamp *stamp,
                          const struct identity *id)
{
    return (size_t)snprintf(line, LINE_BYTES_MAX, STAMP_FORMAT, stamp->start, stamp->previous,
                            id->inode, id->born_ns);
}

static size_t print_witness(char line[LINE_BYTES_MAX], const struct bf_witness *w,
                            const struct identity *id)
{
    return (size_t)snprintf(line, LINE_BYTES_MAX, WITNESS_FORMAT, w->store_id, w->count,
                            w->sequence, id->inode, id->born_ns);
}

static int write_at_start(int fd, const char *line, size_t len)
{
    ssize_t n = pwrite(fd, line, len, 0);
    if (n == (ssize_t)len)
        return 0;
    return n < 0 ? -errno : -ENOSPC;
}

/* A new file under a name of its own; its descriptor. */
static int make_fresh(const char *dir, const char *name, char fresh[PATH_BYTES_MAX],
                      struct identity *ret)
{
    char temporary[64];
    snprintf(temporary, sizeof(temporary), "%s.new", name);
    int rc = path_in(dir, temporary, fresh);
    if (rc != 0)
        return rc;
    unlink(fresh);
    int fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (identify(fd, "", AT_EMPTY_PATH, ret))
        return fd;
    rc = -errno;
    close(fd);
    return rc;
}

/* The new file gets its line and its place; closed and gone on failure. */
static int put_in_place(const char *dir, const char *name, const char *fresh, int fd,
                        const char *line, size_t len)
{
    char path[PATH_BYTES_MAX];
    int rc = path_in(dir, name, path);
    if (rc == 0)
        rc = write_at_start(fd, line, len);
    if (rc == 0 && rename(fresh, path) != 0)
        rc = -errno;
    if (rc != 0) {
        unlink(fresh);
        close(fd);
    }
    return rc;
}

bool bf_stamp_read(const char *dir, struct bf_stamp *ret, const char **ret_why)
{
    char line[LINE_BYTES_MAX];
    struct identity now;
    uint64_t inode, born_ns;
    *ret_why = "it lacks the file that its last start left in it";
    if (!read_line(dir, STAMP_NAME, line, &now) ||
        sscanf(line, STAMP_SCAN, &ret->start, &ret->previous, &inode, &born_ns) != 4)
        return false;
    *ret_why = "its files are copies of those that ran";
    return is_untouched(&now, inode, born_ns);
}

int bf_stamp_write(const char *dir, const struct bf_stamp *stamp)
{
    char line[LINE_BYTES_MAX], fresh[PATH_BYTES_MAX];
    struct identity id;
    int fd = make_fresh(dir, STAMP_NAME, fresh, &id);
    if (fd < 0)
        return fd;
    int rc = put_in_place(dir, STAMP_NAME, fresh, fd, line, print_stamp(line, stamp, &id));
    if (rc == 0)
        close(fd);
    return rc;
}

void bf_stamp_settle(const char *dir, uint64_t start)
{
    char line[LINE_BYTES_MAX], path[PATH_BYTES_MAX];
    struct identity id;
    struct bf_stamp stamp = {.start = start};
    if (path_in(dir, STAMP_NAME, path) != 0)
        return;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    /* a failure leaves the previous start in it, which is true as well */
    if (identify(fd, "", AT_EMPTY_PATH, &id))
        (void)write_at_start(fd, line, print_stamp(line, &stamp, &id));
    close(fd);
}

bool bf_witness_read(const char *dir, struct bf_witness *ret)
{
    char line[LINE_BYTES_MAX];
    struct identity now;
    uint64_t inode, born_ns;
    return read_line(dir, WITNESS_NAME, line, &now) &&
           sscanf(line, WITNESS_SCAN, &ret->store_id, &ret->count, &ret->sequence, &inode,
                  &born_ns) == 5 &&
           is_untouched(&now, inode, born_ns);
}

int bf_witness_open(const char *dir, const struct bf_witness *witness)
{
    char line[LINE_BYTES_MAX], fresh[PATH_BYTES_MAX];
    struct identity id;
    int fd = make_fresh(dir, WITNESS_NAME, fresh, &id);
    if (fd < 0)
        return fd;
    int rc = put_in_place(dir, WITNESS_NAME, fresh, fd, line, print_witness(line, witness, &id));
    return rc == 0 ? fd : rc;
}

int bf_witness_update(int fd, const struct bf_witness *witness)
{
    char line[LINE_BYTES_MAX];
    struct identity id;
    return identify(fd, "", AT_EMPTY_PATH, &id)
               ? write_at_start(fd, line, print_witness(line, witness, &id))
               : -errno;
}

bool bf_lineage_looks_copied(const char *dir)
{
    char path[PATH_BYTES_MAX];
    struct identity id;
    for (size_t i = 0; i < sizeof(rocks_files) / sizeof(rocks_files[0]); i++)
        if (path_in(dir, rocks_files[i], path) == 0 && identify(AT_FDCWD, path, 0, &id) &&
            (int64_t)id.born_ns > id.written_ns + CHANGE_SLACK_NS)
            return true;
    return false;
}
