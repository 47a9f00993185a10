/* belfry-ctrlplane: the control process. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "belfry/base/log.h"
#include "belfry/conf/conf_load.h"
#include "belfry/plane.h"

static const char help[] =
    "belfry-ctrlplane - Belfry's control process: takes events from HTTP or Kafka, decides for each\n"
    "person what to send, keeps inbox and ledger, and feeds the dataplane through shared memory.\n"
    "\n"
    "usage: belfry-ctrlplane --config FILE\n"
    "\n"
    "  --config FILE   configuration (conf/belfry.yaml documents every option)\n"
    "  --version       print the version\n"
    "  --help          this text\n"
    "\n"
    "It may be killed and started again at any time: sockets stay open, nothing accepted is lost.\n"
    "Without a dataplane it runs detached: API and log are on, nothing is delivered until one starts.\n"
    "Signals: TERM, INT stop it cleanly. Reload with `belfryctl config reload`.\n";

static _Atomic int stop_flag;

static void on_signal(int sig)
{
    (void)sig;
    stop_flag = 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"version", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *path = NULL;
    int opt;
    while ((opt = getopt_long(argc, argv, "c:vh", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            path = optarg;
            break;
        case 'v':
            puts("belfry-ctrlplane " BELFRY_VERSION);
            return 0;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            fputs(help, stderr);
            return 2;
        }
    }
    char err[BF_CONF_ERROR_BYTES_MAX];
    struct bf_conf *conf;
    if (bf_conf_load(path, &conf, err, sizeof(err)) != 0) {
        fprintf(stderr, "belfry-ctrlplane: %s\n", err);
        return 1;
    }
    bf_log_configure(conf->log_level, conf->log_format);
    (void)umask(BF_UMASK);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    struct bf_plane_args args = {.conf = conf, .config_path = path, .stop = &stop_flag};
    return bf_ctrlplane_run(&args);
}
