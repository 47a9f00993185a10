/* A directory of a test's own, removed with all that is in it. */
#pragma once

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

static inline void tmp_dir_make(char *out, size_t len)
{
    const char *base = getenv("TMPDIR");
    snprintf(out, len, "%s/belfry-test-XXXXXX", base ? base : "/tmp");
    if (mkdtemp(out) == NULL) {
        perror(out);
        abort();
    }
}

static inline int tmp_dir_remove_one(const char *path, const struct stat *st, int flag,
                                     struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static inline void tmp_dir_remove(const char *dir)
{
    nftw(dir, tmp_dir_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
