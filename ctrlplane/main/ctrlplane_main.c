/* belfry-ctrlplane: the control process. */
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/calls.h"
#include "belfry/base/log.h"
#include "belfry/conf/conf_load.h"
#include "belfry/plane.h"
#include "config/config_check.h"

static const char help[] =
    "belfry-ctrlplane - Belfry's control process: takes events from HTTP or Kafka, decides for "
    "each\n"
    "person what to send, keeps inbox and ledger, and feeds the dataplane through shared memory.\n"
    "\n"
    "usage: belfry-ctrlplane --config FILE\n"
    "\n"
    "  --config FILE   configuration (conf/belfry.yaml documents every option)\n"
    "  --check         look at the configuration, say what is wrong with it, and end; 1: something "
    "is.\n"
    "                  belfryctl config check asks this\n"
    "  --routes        print the API's calls, one a line\n"
    "  --version       print the version\n"
    "  --help          this text\n"
    "\n"
    "It may be killed and started again at any time: sockets stay open, nothing accepted is lost.\n"
    "Without a dataplane it runs detached: API and log are on, nothing is delivered until one "
    "starts.\n"
    "Signals: TERM, INT stop it cleanly. Reload with `belfryctl config reload`.\n";

static _Atomic int stop_flag;

/* One line a finding, whatever it quotes. */
static void print_finding(void *arg, bool is_fault, const char *text)
{
    (void)arg;
    fputs(is_fault ? "wrong: " : "note: ", stdout);
    for (; *text; text++)
        putchar(*text == '\n' ? ' ' : *text);
    putchar('\n');
}

static void on_signal(int sig)
{
    (void)sig;
    stop_flag = 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
        {"routes", no_argument, NULL, 'r'},       {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},         {0}};
    const char *path = NULL;
    bool is_check = false;
    int opt;
    while ((opt = getopt_long(argc, argv, "c:vh", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            path = optarg;
            break;
        case 'k':
            is_check = true;
            break;
        case 'r':
            bf_api_print_routes(stdout);
            return 0;
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
    if (is_check) {
        unsigned faults = bf_config_check(conf, print_finding, NULL);
        bf_conf_free(conf);
        return faults > 0;
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
