/*
 * Sentences for what a start most often fails on: a directory or file that this user may not use,
 * or that is not there. Each is one line that says what happened, to what, and what to do.
 */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "belfry/base/text.h"
#include "belfry/base/err.h"

/* |rc| (-errno) of using |path|, which the option |option| names. */
static inline void bf_explain_path(int rc, const char *option, const char *path, char *out,
                                   size_t cap)
{
    if (rc == -EACCES || rc == -EPERM)
        snprintf(
            out, cap,
            "%s: no permission for %.*s (EACCES): this process runs as uid %u. Start it as the "
            "user that owns the directory, or as root, or set %s to a place that this user "
            "may write to",
            option, BF_CUT(path, 200), (unsigned)geteuid(), option);
    else if (rc == -ENOENT)
        snprintf(out, cap,
                 "%s: %.*s cannot be made: a directory above it does not exist. Make that one, or "
                 "set %s to another place",
                 option, BF_CUT(path, 200), option);
    else
        snprintf(out, cap, "%s: %.*s cannot be used: %s. Set %s to another place", option,
                 BF_CUT(path, 200), bf_err_text(rc), option);
}

/* Makes a directory of ours (mode 0700) if it is missing, and checks that we may write to it.
 * Returns 0, or -errno with one line in |err|. */
static inline int bf_make_dir(const char *option, const char *path, char *err, size_t err_len)
{
    struct stat st;
    int rc = mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : -errno;
    if (rc == 0 && stat(path, &st) != 0)
        rc = -errno;
    else if (rc == 0 && !S_ISDIR(st.st_mode))
        rc = -ENOTDIR;
    else if (rc == 0 && eaccess(path, W_OK | X_OK) != 0)
        rc = -errno;
    if (rc != 0)
        bf_explain_path(rc, option, path, err, err_len);
    return rc;
}
