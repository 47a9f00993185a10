/* Result line of a benchmark: see pf_report.h. */
#include "pf_report.h"

#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <yyjson.h>

#include "belfry/base/histogram.h"
#include "pf_floor.h"
#include "pf_node.h"
#include "pf_proc.h"

struct pf_report {
    yyjson_mut_doc *doc;
    yyjson_mut_val *root, *bars;
    double ghz_at_start;
    bool missed;
};

static struct pf_ticks begin;

/* Before main: a report is often made when all is measured. */
__attribute__((constructor)) static void note_begin(void)
{
    pf_proc_ticks(&begin);
}

void pf_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

void pf_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

/* First line of a command's output, "" when it fails. Figures only, never input from outside. */
static void command_line(const char *command, char *out, size_t cap)
{
    FILE *pipe = popen(command, "r");
    out[0] = '\0';
    if (!pipe)
        return;
    if (!fgets(out, (int)cap, pipe))
        out[0] = '\0';
    pclose(pipe);
    out[strcspn(out, "\n")] = '\0';
}

static void add_revision(struct pf_report *report)
{
    char command[PF_PATH_BYTES + 64], revision[64];
    snprintf(command, sizeof(command), "git -C '%s' describe --always --dirty 2>/dev/null",
             pf_root());
    command_line(command, revision, sizeof(revision));
    pf_report_text(report, "revision", revision);
}

static void add_machine(struct pf_report *report)
{
    struct utsname uts;
    char text[256];
    uname(&uts);
    pf_proc_cpu_model(text, sizeof(text));
    pf_report_text(report, "machine", text);
    pf_report_u64(report, "cores", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    pf_report_u64(report, "memory_mb", pf_proc_meminfo_kb("MemTotal") / 1024);
    snprintf(text, sizeof(text), "%s %s", uts.sysname, uts.release);
    pf_report_text(report, "kernel", text);
    pf_proc_file("/sys/class/net/lo/queues/rx-0/rps_cpus", text, sizeof(text));
    pf_report_text(report, "rps", text);
    pf_proc_file("/proc/sys/net/ipv4/tcp_congestion_control", text, sizeof(text));
    pf_report_text(report, "congestion_default", text);
    pf_proc_file("/proc/loadavg", text, sizeof(text));
    pf_report_text(report, "load_at_start", text);
}

struct pf_report *pf_report_create(const char *benchmark)
{
    struct pf_report *report = calloc(1, sizeof(*report));
    if (!report)
        pf_die("out of memory");
    report->doc = yyjson_mut_doc_new(NULL);
    report->root = yyjson_mut_obj(report->doc);
    report->bars = yyjson_mut_obj(report->doc);
    yyjson_mut_doc_set_root(report->doc, report->root);
    pf_report_text(report, "benchmark", benchmark);
    add_machine(report);
    add_revision(report);
    report->ghz_at_start = pf_floor_core_ghz();
    return report;
}

static yyjson_mut_val *key_of(struct pf_report *report, const char *name)
{
    return yyjson_mut_strcpy(report->doc, name);
}

/* Numbers keep six digits: more would only be noise. */
static yyjson_mut_val *number_of(struct pf_report *report, double value)
{
    char text[32];
    if (!isfinite(value))
        return yyjson_mut_null(report->doc);
    snprintf(text, sizeof(text), fabs(value) >= 1e5 ? "%.0f" : "%.6g", value);
    return yyjson_mut_rawcpy(report->doc, text);
}

void pf_report_u64(struct pf_report *report, const char *name, uint64_t value)
{
    yyjson_mut_obj_add(report->root, key_of(report, name), yyjson_mut_uint(report->doc, value));
}

void pf_report_double(struct pf_report *report, const char *name, double value)
{
    yyjson_mut_obj_add(report->root, key_of(report, name), number_of(report, value));
}

void pf_report_text(struct pf_report *report, const char *name, const char *text)
{
    yyjson_mut_obj_add(report->root, key_of(report, name), yyjson_mut_strcpy(report->doc, text));
}

void pf_report_bool(struct pf_report *report, const char *name, bool value)
{
    yyjson_mut_obj_add(report->root, key_of(report, name), yyjson_mut_bool(report->doc, value));
}

void pf_report_null(struct pf_report *report, const char *name, const char *why)
{
    char key[128];
    yyjson_mut_obj_add(report->root, key_of(report, name), yyjson_mut_null(report->doc));
    snprintf(key, sizeof(key), "%s_why", name);
    pf_report_text(report, key, why);
}

void pf_report_list(struct pf_report *report, const char *name, const double *values,
                    uint32_t count)
{
    yyjson_mut_val *list = yyjson_mut_arr(report->doc);
    for (uint32_t i = 0; i < count; i++)
        yyjson_mut_arr_append(list, number_of(report, values[i]));
    yyjson_mut_obj_add(report->root, key_of(report, name), list);
}

void pf_report_hist(struct pf_report *report, const char *name, const struct bf_hist *h)
{
    static const double quantiles[] = {0.01, 0.05, 0.1,  0.25,  0.5,   0.75,   0.9,
                                       0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999};
    char key[96];
    yyjson_mut_val *list = yyjson_mut_arr(report->doc);
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        if (quantiles[i] > 0.5 && (1 - quantiles[i]) * (double)h->count < 1)
            break; /* fewer samples than that: the next ones would all be the largest */
        yyjson_mut_val *point = yyjson_mut_arr(report->doc);
        yyjson_mut_arr_append(point, number_of(report, quantiles[i]));
        yyjson_mut_arr_append(point,
                              number_of(report, (double)bf_hist_quantile(h, quantiles[i]) / 1e3));
        yyjson_mut_arr_append(list, point);
    }
    snprintf(key, sizeof(key), "%s_quantiles_us", name);
    yyjson_mut_obj_add(report->root, key_of(report, key), list);
}

void pf_congestion(int socket_fd, char out[PF_CONGESTION_BYTES])
{
    socklen_t len = PF_CONGESTION_BYTES - 1;
    memset(out, 0, PF_CONGESTION_BYTES);
    getsockopt(socket_fd, IPPROTO_TCP, TCP_CONGESTION, out, &len);
}

void pf_report_congestion(struct pf_report *report, int socket_fd)
{
    char name[PF_CONGESTION_BYTES];
    pf_congestion(socket_fd, name);
    pf_report_text(report, "congestion", name);
}

void pf_report_bar(struct pf_report *report, const char *id, double value, const char *unit,
                   enum pf_bar_sense sense, double bar)
{
    yyjson_mut_val *entry = yyjson_mut_obj(report->doc);
    bool ok = isfinite(value) && (sense == PF_AT_MOST ? value <= bar : value >= bar);
    yyjson_mut_obj_add(entry, key_of(report, "value"), number_of(report, value));
    yyjson_mut_obj_add(entry, key_of(report, "unit"), yyjson_mut_strcpy(report->doc, unit));
    yyjson_mut_obj_add(entry, key_of(report, "bar"), number_of(report, bar));
    yyjson_mut_obj_add(entry, key_of(report, "ok"), yyjson_mut_bool(report->doc, ok));
    yyjson_mut_obj_add(report->bars, key_of(report, id), entry);
    report->missed |= !ok;
}

void pf_report_bar_and(struct pf_report *report, const char *id, bool holds)
{
    yyjson_mut_val *entry = yyjson_mut_obj_get(report->bars, id);
    yyjson_mut_val *ok = yyjson_mut_obj_get(entry, "ok");
    if (holds || !yyjson_mut_is_bool(ok))
        return;
    yyjson_mut_set_bool(ok, false);
    report->missed = true;
}

void pf_report_bar_null(struct pf_report *report, const char *id, const char *unit, double bar,
                        const char *why)
{
    yyjson_mut_val *entry = yyjson_mut_obj(report->doc);
    yyjson_mut_obj_add(entry, key_of(report, "value"), yyjson_mut_null(report->doc));
    yyjson_mut_obj_add(entry, key_of(report, "unit"), yyjson_mut_strcpy(report->doc, unit));
    yyjson_mut_obj_add(entry, key_of(report, "bar"), number_of(report, bar));
    yyjson_mut_obj_add(entry, key_of(report, "ok"), yyjson_mut_null(report->doc));
    yyjson_mut_obj_add(entry, key_of(report, "why"), yyjson_mut_strcpy(report->doc, why));
    yyjson_mut_obj_add(report->bars, key_of(report, id), entry);
}

/* A virtual machine that is not given the time it asks for has tails that no server can help. */
static void add_steal(struct pf_report *report)
{
    struct pf_ticks end;
    pf_proc_ticks(&end);
    uint64_t wanted = end.wanted - begin.wanted;
    uint64_t stolen = end.stolen - begin.stolen;
    pf_report_double(report, "steal_share", wanted ? (double)stolen / (double)wanted : 0);
}

/* Cycles are what a figure per core is made of, and a shared core does not give those of its label.
 */
static void add_core(struct pf_report *report)
{
    const double ghz[] = {report->ghz_at_start, pf_floor_core_ghz()};
    pf_report_list(report, "core_ghz", ghz, 2);
}

int pf_report_print(struct pf_report *report)
{
    add_steal(report);
    add_core(report);
    yyjson_mut_obj_add(report->root, key_of(report, "bars"), report->bars);
    char *text = yyjson_mut_write(report->doc, 0, NULL);
    bool strict = getenv("BELFRY_PERF_STRICT") != NULL;
    int code = !text || (strict && report->missed) ? 1 : 0;
    if (text)
        puts(text);
    fflush(stdout);
    free(text);
    yyjson_mut_doc_free(report->doc);
    free(report);
    return code;
}

static int double_order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double pf_median(const double *values, uint32_t count)
{
    double sorted[PF_ROUNDS_MAX];
    if (count == 0 || count > PF_ROUNDS_MAX)
        return NAN;
    memcpy(sorted, values, count * sizeof(*values));
    qsort(sorted, count, sizeof(*sorted), double_order);
    return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}
