/*
 * Backups on disk: a directory of files and a manifest, MANIFEST.belfry, that names each file with
 * its size and checksum and is written last. A copy is made under another name and renamed once all
 * of it is on the disk, so whatever looks like a backup is complete. Blocking; any thread.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BF_BACKUP_PARTS_MAX  16u
#define BF_BACKUP_PATH_MAX   640u
#define BF_BACKUP_EPOCH_MAX  40u
#define BF_BACKUP_ENGINE_MAX 16u
/* This file is in the state directory while `belfryctl restore` moves files: no node starts while
 * it is there. */
#define BF_RESTORING "RESTORING"
/* Checkpoints that a backup copies, inside the state directory: they keep files that the node
 * dropped. */
#define BF_CHECKPOINTS ".checkpoints"
/* What a copy that is not complete ends with. */
#define BF_BACKUP_PARTIAL ".belfry-partial"

/* A file, or a directory with the files in it (RocksDB's have no directories below). */
struct bf_backup_part {
    char from[BF_BACKUP_PATH_MAX];
    char to[64]; /* name in the backup */
};

/* Written by the thread that copies, read by whoever shows progress; is_cancelled the other way
 * round. Relaxed: each value stands alone. */
struct bf_backup_progress {
    _Atomic uint64_t done, total; /* bytes */
    _Atomic bool is_cancelled;
};

struct bf_backup_info {
    uint64_t created_ms;
    uint64_t bytes;
    uint32_t files;
    char epoch[BF_BACKUP_EPOCH_MAX];
    char engine[BF_BACKUP_ENGINE_MAX]; /* of the log */
};

/* Copies the parts into |dest|, which must not exist, its parent must. |spare| bytes of its file
 * system stay free. Fills ret->bytes and files; the rest is given. Returns 0; or -errno or BF_ERR_*
 * with a line in |err|, and then nothing of the copy is left. */
int bf_backup_write(const struct bf_backup_part *parts, uint32_t count, const char *dest,
                    uint64_t spare, struct bf_backup_info *info,
                    struct bf_backup_progress *progress, char *err, size_t err_len);

/* Reads every file and compares it with the manifest. BF_ERR_MALFORMED: no manifest, or not whole;
 * BF_ERR_CORRUPT: a file is missing or another. */
int bf_backup_verify(const char *src, struct bf_backup_info *ret,
                     struct bf_backup_progress *progress, char *err, size_t err_len);

/* Copies all files of a backup below |dest|, which is made and must not exist, and verifies what
 * was copied. On failure |dest| is gone again. */
int bf_backup_unpack(const char *src, const char *dest, struct bf_backup_info *ret,
                     struct bf_backup_progress *progress, char *err, size_t err_len);

/* Deletes a directory with the files and directories in it; none is fine. 0 or -errno. */
int bf_backup_remove(const char *dir);
/* Makes a directory's entries durable. */
int bf_backup_sync_dir(const char *dir);
