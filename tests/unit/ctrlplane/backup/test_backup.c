/* Backups on disk: whole or not there, checked when they are read. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backup/backup.h"
#include "belfry/base/err.h"
#include "tmp_dir.h"

static char dir[200], err[512];
static struct bf_backup_part parts[2];
static struct bf_backup_info info;
static struct bf_backup_progress progress;

static const char *in_dir(const char *name)
{
    static char paths[8][300];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
    return path;
}

static void make_file(const char *name, size_t bytes)
{
    FILE *file = fopen(in_dir(name), "w");
    for (size_t i = 0; i < bytes; i++)
        fputc((int)(i * 31 % 251), file);
    fclose(file);
}

static void begin(void)
{
    tmp_dir_make(dir, sizeof(dir));
    mkdir(in_dir("store"), 0700);
    make_file("store/000001.sst", 700000);
    make_file("store/CURRENT", 16);
    make_file("key", 64);
    snprintf(parts[0].from, sizeof(parts[0].from), "%s", in_dir("store"));
    snprintf(parts[0].to, sizeof(parts[0].to), "store");
    snprintf(parts[1].from, sizeof(parts[1].from), "%s", in_dir("key"));
    snprintf(parts[1].to, sizeof(parts[1].to), "device.key");
    info = (struct bf_backup_info){.created_ms = 5, .epoch = "e-1", .engine = "embedded"};
    memset(&progress, 0, sizeof(progress));
}

static void end(void)
{
    tmp_dir_remove(dir);
}

static int write_it(uint64_t spare)
{
    return bf_backup_write(parts, 2, in_dir("backup"), spare, &info, &progress, err, sizeof(err));
}

TestSuite(backup, .init = begin, .fini = end);

Test(backup, comes_back_as_it_was)
{
    struct bf_backup_info read;
    cr_assert_eq(write_it(0), 0, "%s", err);
    cr_assert_eq(info.files, 3);
    cr_assert_eq(info.bytes, 700000 + 16 + 64);
    cr_assert_eq(progress.done, progress.total);
    cr_assert_eq(
        bf_backup_unpack(in_dir("backup"), in_dir("back"), &read, &progress, err, sizeof(err)), 0,
        "%s", err);
    cr_assert_eq(read.files, 3);
    cr_assert_eq(read.bytes, info.bytes);
    cr_assert_str_eq(read.epoch, "e-1");
    cr_assert_eq(access(in_dir("back/store/000001.sst"), R_OK), 0);
    cr_assert_eq(access(in_dir("back/device.key"), R_OK), 0);
    cr_assert_eq(access(in_dir("backup" BF_BACKUP_PARTIAL), F_OK), -1);
}

Test(backup, refuses_what_is_there_and_what_does_not_fit)
{
    cr_assert_eq(write_it(UINT64_C(1) << 60), -ENOSPC);
    cr_assert(strstr(err, "to stay free"), "%s", err);
    cr_assert_eq(access(in_dir("backup"), F_OK), -1);
    mkdir(in_dir("backup"), 0700);
    cr_assert_eq(write_it(0), -EEXIST);
}

/* The disk is full in the middle of a file: here the process may not write more than so many bytes.
 */
Test(backup, a_full_disk_leaves_nothing)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit limit = {300000, 300000};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        _exit(write_it(0) == -EFBIG ? 0 : 1);
    }
    int status = 0;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    cr_assert_eq(access(in_dir("backup"), F_OK), -1);
    cr_assert_eq(access(in_dir("backup" BF_BACKUP_PARTIAL), F_OK), -1);
}

Test(backup, a_cancelled_one_leaves_nothing)
{
    progress.is_cancelled = true;
    cr_assert_eq(write_it(0), -ECANCELED);
    cr_assert_eq(access(in_dir("backup"), F_OK), -1);
    cr_assert_eq(access(in_dir("backup" BF_BACKUP_PARTIAL), F_OK), -1);
}

static int verify(void)
{
    struct bf_backup_info read;
    return bf_backup_verify(in_dir("backup"), &read, &progress, err, sizeof(err));
}

Test(backup, a_cut_manifest_or_another_file_is_told)
{
    cr_assert_eq(write_it(0), 0);
    cr_assert_eq(verify(), 0, "%s", err);
    int fd = open(in_dir("backup/store/000001.sst"), O_WRONLY);
    cr_assert_eq(pwrite(fd, "x", 1, 5000), 1);
    close(fd);
    cr_assert_eq(verify(), BF_ERR_CORRUPT);
    make_file("backup/store/000001.sst", 699999);
    cr_assert_eq(verify(), BF_ERR_CORRUPT);
    make_file("backup/store/000001.sst", 700000);
    cr_assert_eq(verify(), 0, "%s", err);
    cr_assert_eq(truncate(in_dir("backup/MANIFEST.belfry"), 60), 0);
    cr_assert_eq(verify(), BF_ERR_MALFORMED);
}

Test(backup, a_manifest_cannot_name_files_outside)
{
    struct bf_backup_info read;
    cr_assert_eq(write_it(0), 0);
    FILE *file = fopen(in_dir("backup/MANIFEST.belfry"), "w");
    fprintf(file,
            "belfry-backup 1\ncreated 5\nepoch e\nengine embedded\nfile 64 0 ../key\nend 1\n");
    fclose(file);
    cr_assert_eq(
        bf_backup_unpack(in_dir("backup"), in_dir("back"), &read, &progress, err, sizeof(err)),
        BF_ERR_MALFORMED);
    cr_assert_eq(access(in_dir("back"), F_OK), -1);
}
