/* belfry-dataplane: the process that holds the sockets. */
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "belfry/base/log.h"
#include "belfry/conf/conf_load.h"
#include "belfry/plane.h"
#include "main/dataplane.h"
#include "main/memory.h"

static _Atomic int stop_requested;

static const char help[] =
    "belfry-dataplane - holds the WebSocket connections and delivers to them\n"
    "\n"
    "usage: belfry-dataplane --config FILE [--raw | --echo]\n"
    "       belfry-dataplane --config FILE --memory [--connections N] [--tls] [--json]\n"
    "\n"
    "  -c, --config FILE  the node's configuration (YAML; conf/belfry.yaml explains each option)\n"
    "      --raw          benchmarks only: three reserved broadcast topics send the same bytes to\n"
    "                     all sockets with nothing in between (see dataplane/worker/raw.h)\n"
    "      --echo         conformance tests only: every WebSocket message is answered with "
    "itself,\n"
    "                     up to 16 MiB, no token needed; of the configuration dataplane.*,\n"
    "                     websocket.* and node.run_dir count. No control process, no hugepages,\n"
    "                     nothing is announced. Point the Autobahn suite at ws://HOST:PORT/v1/ws\n"
    "      --memory       prints what so many connections take, before they do, and ends: the sum\n"
    "                     of a worker by name, the shared region, the kernel's part\n"
    "  -V, --version      print the version\n"
    "  -h, --help         print this\n"
    "\n"
    "It runs beside belfry-ctrlplane, which may be stopped and started again while every\n"
    "connection stays open. It needs hugepages (vm.nr_hugepages, a hugetlbfs mount) and io_uring;\n"
    "scripts/setup prepares both, and says what is missing.\n"
    "\n"
    "Files in node.run_dir: dataplane.lock (held while it lives), current (announces its shared\n"
    "memory to ctrlplane), dataplane.ports ({\"ws\":PORT,\"wss\":PORT}, where it listens).\n"
    "\n"
    "SIGTERM or SIGINT: clients are told to reconnect (goaway, close 4000), then it ends.\n"
    "Exit code: 0 after a stop, 1 when it could not start (the reason is on stderr), 2 usage.\n";

static void on_signal(int number)
{
    (void)number;
    /* relaxed: a flag; async-signal-safe because it is lock-free */
    atomic_store_explicit(&stop_requested, 1, memory_order_relaxed);
}

static void handle_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN; /* a client that is gone is an error code, not a signal */
    (void)sigaction(SIGPIPE, &action, NULL);
}

static void print(int fd, const char *text)
{
    ssize_t written = write(fd, text, strlen(text));
    (void)written; /* nowhere left to complain */
}

/* Rings and blocks that nobody else will see, in ordinary memory. */
static int run_echo(struct bf_plane_args *args)
{
    size_t bytes = bf_region_bytes(args->conf);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || bf_region_create(memory, bytes, args->conf, &args->region) != 0) {
        BF_ERROR("dataplane", "no memory for a region of %zu bytes", bytes);
        return 1;
    }
    int rc = bf_dataplane_run_as(args, BF_DATAPLANE_ECHO);
    (void)munmap(memory, bytes);
    return rc;
}

/* Range of dataplane.connections_max. */
static bool read_connections(const char *text, uint32_t *ret)
{
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 10);
    if (*end != '\0' || value < 100 || value > 2000000) {
        print(STDERR_FILENO, "--connections: a whole number, 100..2000000\n");
        return false;
    }
    *ret = (uint32_t)value;
    return true;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"raw", no_argument, NULL, 'r'},
        {"echo", no_argument, NULL, 'e'},         {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},         {"memory", no_argument, NULL, 'm'},
        {"tls", no_argument, NULL, 't'},          {"connections", required_argument, NULL, 'n'},
        {"json", no_argument, NULL, 'j'},         {NULL, 0, NULL, 0},
    };
    const char *path = NULL;
    enum bf_dataplane_mode mode = BF_DATAPLANE_NORMAL;
    struct bf_memory_wish wish = {0};
    bool memory = false;
    for (int c; (c = getopt_long(argc, argv, "c:Vh", options, NULL)) != -1;) {
        switch (c) {
        case 'c':
            path = optarg;
            break;
        case 'r':
            mode = BF_DATAPLANE_RAW;
            break;
        case 'e':
            mode = BF_DATAPLANE_ECHO;
            break;
        case 'm':
            memory = true;
            break;
        case 't':
            wish.tls = true;
            break;
        case 'j':
            wish.json = true;
            break;
        case 'n':
            if (!read_connections(optarg, &wish.connections))
                return 2;
            break;
        case 'V':
            print(STDOUT_FILENO, "belfry-dataplane " BELFRY_VERSION "\n");
            return 0;
        case 'h':
            print(STDOUT_FILENO, help);
            return 0;
        default:
            print(STDERR_FILENO, "try belfry-dataplane --help\n");
            return 2;
        }
    }
    if (!path || optind != argc) {
        print(STDERR_FILENO, "usage: belfry-dataplane --config FILE (see --help)\n");
        return 2;
    }
    char err[BF_CONF_ERROR_BYTES_MAX] = "";
    struct bf_conf *conf = NULL;
    if (bf_conf_load(path, &conf, err, sizeof(err)) != 0) {
        BF_ERROR("dataplane", "%s", err);
        return 1;
    }
    bf_log_configure(conf->log_level, conf->log_format);
    if (memory) {
        int code = bf_memory_print(conf, &wish);
        bf_conf_free(conf);
        return code;
    }
    (void)umask(BF_UMASK);
    handle_signals();
    struct bf_plane_args args = {.conf = conf, .config_path = path, .stop = &stop_requested};
    int rc = mode == BF_DATAPLANE_ECHO ? run_echo(&args) : bf_dataplane_run_as(&args, mode);
    bf_conf_free(conf);
    return rc;
}
