/* belfryctl: the command line of a node. One process a call; nothing here outlives it. */
#include <stdio.h>
#include <string.h>

#include "belfry/conf/conf_load.h"
#include "belfry/conf/conf_print.h"

static int config_check(const char *path)
{
    char err[BF_CONF_ERROR_BYTES_MAX];
    struct bf_conf *conf;
    if (bf_conf_load(path, &conf, err, sizeof(err)) != 0) {
        fprintf(stderr, "belfryctl: %s\n", err);
        return 1;
    }
    bf_conf_free(conf);
    puts("ok");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 3 && strcmp(argv[1], "config") == 0 && strcmp(argv[2], "reference") == 0) {
        bf_conf_print_yaml(stdout);
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "config") == 0 && strcmp(argv[2], "check") == 0)
        return config_check(argv[3]);
    fputs("usage: belfryctl config reference | config check FILE\n", stderr);
    return 2;
}
