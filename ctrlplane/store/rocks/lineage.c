/* See lineage.h. Both files are one line of text of a fixed length, so that writing over it in
 * place never leaves half of a longer one. */
#include "store/rocks/lineage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* RocksDB makes these once, or replaces them by rename: none is written again after it was copied.
 */
static const char *const rocks_files[] = {"IDENTITY", "CURRENT"};

/* The files are written and renamed within microseconds, so content and inode change together. A
 * copy that is given the old time of its content changes its inode now. */
#define CHANGE_SLACK_NS INT64_C(1000000000)

#define LINE_BYTES_MAX 160u
#define PATH_BYTES_MAX 640u
#define NUMBERS_MAX    3u

/* One of the two files: its name, the line's first words, and the numbers that follow them. Behind
 * these come inode and time of birth of the file itself. */
struct kind {
    const char *name, *words;
    unsigned count;
    struct {
        int width;
        bool is_hex;
    } numbers[NUMBERS_MAX];
};

static const struct kind stamp_kind = {"STARTED", "belfry-stamp 1", 2, {{16, true}, {16, true}}};
static const struct kind witness_kind = {
    "store.witness", "belfry-witness 1", 3, {{16, true}, {10, false}, {20, false}}};

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

/* ---- the line ---- */

static size_t print_line(const struct kind *kind, const uint64_t *numbers,
                         const struct identity *id, char line[LINE_BYTES_MAX])
{
    int n = snprintf(line, LINE_BYTES_MAX, "%s", kind->words);
    for (unsigned i = 0; i < kind->count; i++)
        n += snprintf(line + n, LINE_BYTES_MAX - (size_t)n,
                      kind->numbers[i].is_hex ? " %0*" PRIx64 : " %0*" PRIu64,
                      kind->numbers[i].width, numbers[i]);
    n += snprintf(line + n, LINE_BYTES_MAX - (size_t)n, " %020" PRIu64 " %020" PRIu64 "\n",
                  id->inode, id->born_ns);
    return (size_t)n;
}

/* Reads the number at |*at| and moves |*at| past it. False: there is none. */
static bool next_number(const char **at, bool is_hex, uint64_t *ret)
{
    char *end;
    errno = 0;
    *ret = strtoull(*at, &end, is_hex ? 16 : 10);
    bool is_one = end != *at && errno == 0;
    *at = end;
    return is_one;
}

static bool parse_line(const struct kind *kind, const char *line, uint64_t *numbers,
                       struct identity *ret_id)
{
    size_t words = strlen(kind->words);
    const char *at = line + words;
    if (strncmp(line, kind->words, words) != 0)
        return false;
    for (unsigned i = 0; i < kind->count; i++)
        if (!next_number(&at, kind->numbers[i].is_hex, &numbers[i]))
            return false;
    return next_number(&at, false, &ret_id->inode) && next_number(&at, false, &ret_id->born_ns);
}

/* ---- the file ---- */

/* False: there is no such file, or it cannot be read. *ret_is_copy: it is not the one that was
 * written. */
static bool read_file(const char *dir, const struct kind *kind, uint64_t *numbers,
                      bool *ret_is_copy)
{
    char path[PATH_BYTES_MAX], line[LINE_BYTES_MAX];
    struct identity now, then;
    if (path_in(dir, kind->name, path) != 0)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, line, LINE_BYTES_MAX - 1);
    bool ok = n > 0 && identify(fd, "", AT_EMPTY_PATH, &now);
    line[n > 0 ? n : 0] = 0;
    close(fd);
    if (!ok || !parse_line(kind, line, numbers, &then))
        return false;
    *ret_is_copy = !is_untouched(&now, then.inode, then.born_ns);
    return true;
}

/* Writes over what the open file says, in place. 0 or -errno. */
static int write_line(int fd, const struct kind *kind, const uint64_t *numbers)
{
    char line[LINE_BYTES_MAX];
    struct identity id;
    if (!identify(fd, "", AT_EMPTY_PATH, &id))
        return -errno;
    size_t len = print_line(kind, numbers, &id, line);
    ssize_t n = pwrite(fd, line, len, 0);
    if (n == (ssize_t)len)
        return 0;
    return n < 0 ? -errno : -ENOSPC;
}

/* A new file in the place of the old one; its descriptor, or -errno. */
static int make_file(const char *dir, const struct kind *kind, const uint64_t *numbers)
{
    char path[PATH_BYTES_MAX], fresh[PATH_BYTES_MAX], name[64];
    snprintf(name, sizeof(name), "%s.new", kind->name);
    int rc = path_in(dir, kind->name, path);
    if (rc == 0)
        rc = path_in(dir, name, fresh);
    if (rc != 0)
        return rc;
    unlink(fresh);
    int fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    rc = write_line(fd, kind, numbers);
    if (rc == 0 && rename(fresh, path) != 0)
        rc = -errno;
    if (rc == 0)
        return fd;
    unlink(fresh);
    close(fd);
    return rc;
}

/* ---- stamp and witness ---- */

bool bf_stamp_read(const char *dir, struct bf_stamp *ret, const char **ret_why)
{
    uint64_t numbers[NUMBERS_MAX];
    bool is_copy;
    *ret_why = "it lacks the file that its last start left in it";
    if (!read_file(dir, &stamp_kind, numbers, &is_copy))
        return false;
    *ret = (struct bf_stamp){.start = numbers[0], .previous = numbers[1]};
    *ret_why = "its files are copies of those that ran";
    return !is_copy;
}

int bf_stamp_write(const char *dir, const struct bf_stamp *stamp)
{
    int fd = make_file(dir, &stamp_kind, (const uint64_t[]){stamp->start, stamp->previous});
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

void bf_stamp_settle(const char *dir, uint64_t start)
{
    char path[PATH_BYTES_MAX];
    if (path_in(dir, stamp_kind.name, path) != 0)
        return;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    /* a failure leaves the previous start in it, which is true as well */
    (void)write_line(fd, &stamp_kind, (const uint64_t[]){start, 0});
    close(fd);
}

bool bf_witness_read(const char *dir, struct bf_witness *ret)
{
    uint64_t numbers[NUMBERS_MAX];
    bool is_copy;
    if (!read_file(dir, &witness_kind, numbers, &is_copy) || is_copy)
        return false;
    *ret = (struct bf_witness){
        .store_id = numbers[0], .count = (uint32_t)numbers[1], .sequence = numbers[2]};
    return true;
}

int bf_witness_open(const char *dir, const struct bf_witness *witness)
{
    return make_file(dir, &witness_kind,
                     (const uint64_t[]){witness->store_id, witness->count, witness->sequence});
}

int bf_witness_update(int fd, const struct bf_witness *witness)
{
    return write_line(fd, &witness_kind,
                      (const uint64_t[]){witness->store_id, witness->count, witness->sequence});
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
