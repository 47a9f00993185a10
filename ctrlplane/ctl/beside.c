/*
 * The programs that lie beside this one. What needs a plane's libraries (RocksDB, librdkafka, the
 * dataplane's sum of memory) is asked of that plane's program, so that belfryctl links none of
 * them.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/ctl.h"

extern char **environ;

#define PATH_BYTES 512u

/* The path of |program| in the directory of this one. */
static void path_beside(const char *program, char path[PATH_BYTES])
{
    size_t room = strlen(program) + 1;
    ssize_t n = readlink("/proc/self/exe", path, PATH_BYTES - room);
    path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(path, '/');
    if (slash)
        memcpy(slash + 1, program, room);
}

int bf_ctl_become(const char *const argv[])
{
    char path[PATH_BYTES];
    path_beside(argv[0], path);
    execv(path, (char *const *)(uintptr_t)argv);
    return bf_ctl_fail(BF_CTL_FAILED, "%s: %s", path, strerror(errno));
}

/* Starts |path| with its output in a pipe. The reading end, or NULL after saying why. */
static FILE *start(const char *path, const char *const argv[], pid_t *ret_pid)
{
    int ends[2];
    posix_spawn_file_actions_t actions;
    if (pipe(ends) != 0) {
        bf_ctl_fail(BF_CTL_FAILED, "pipe: %s", strerror(errno));
        return NULL;
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    int rc = posix_spawn(ret_pid, path, &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    FILE *output = rc == 0 ? fdopen(ends[0], "r") : NULL;
    if (!output) {
        bf_ctl_fail(BF_CTL_FAILED, "%s: %s", path, strerror(rc != 0 ? rc : errno));
        close(ends[0]);
    }
    return output;
}

int bf_ctl_ask(const char *const argv[], void (*each)(void *arg, const char *line), void *arg)
{
    char path[PATH_BYTES];
    char *line = NULL;
    size_t cap = 0;
    pid_t pid;
    int status = 0;
    path_beside(argv[0], path);
    FILE *output = start(path, argv, &pid);
    if (!output)
        return -1;
    for (ssize_t n; (n = getline(&line, &cap, output)) > 0;) {
        line[strcspn(line, "\n")] = '\0';
        each(arg, line);
    }
    free(line);
    fclose(output);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    bf_ctl_fail(BF_CTL_FAILED, "%s ended by signal %d", path, WTERMSIG(status));
    return -1;
}
