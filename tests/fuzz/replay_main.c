/*
 * Driver for a fuzz target that was built without libFuzzer: runs the target over every file named,
 * and every file in each directory named, and prints how many. So the corpus is a regression test
 * in any build.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PATH_BYTES 4096

static int replay_file(const char *path, long size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(size > 0 ? (size_t)size : 1); /* exact, so that an overrun is seen */
    size_t n = file && data ? fread(data, 1, (size_t)size, file) : 0;
    int rc = file && data && n == (size_t)size ? 0 : -1;
    if (rc == 0)
        LLVMFuzzerTestOneInput(data, n);
    else
        perror(path);
    free(data);
    if (file)
        fclose(file);
    return rc;
}

/* Returns the files replayed, or -1. */
static int replay(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        perror(path);
        return -1;
    }
    if (!S_ISDIR(st.st_mode))
        return replay_file(path, (long)st.st_size) == 0 ? 1 : -1;
    DIR *dir = opendir(path);
    int count = 0;
    for (struct dirent *entry; dir && count >= 0 && (entry = readdir(dir)) != NULL;) {
        char inner[PATH_BYTES];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        int n = replay(inner);
        count = n < 0 ? -1 : count + n;
    }
    if (dir)
        closedir(dir);
    return dir ? count : -1;
}

int main(int argc, char **argv)
{
    int total = 0;
    for (int i = 1; i < argc; i++) {
        int n = replay(argv[i]);
        if (n < 0)
            return 1;
        total += n;
    }
    printf("%d inputs\n", total);
    return total > 0 ? 0 : 1;
}
