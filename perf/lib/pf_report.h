/*
 * The last line of a benchmark (DESIGN 6): one JSON object with figures, conditions and bars.
 * Numbers are added in the order in which they shall stand. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct pf_report;

/* Starts the object: benchmark, machine, kernel, cores, memory, RPS, git revision. Never NULL: a
 * benchmark without memory for its result ends here. */
struct pf_report *pf_report_create(const char *benchmark);

/* Figures. |name| and |text| need not outlive the call. */
void pf_report_u64(struct pf_report *report, const char *name, uint64_t value);
void pf_report_double(struct pf_report *report, const char *name, double value);
void pf_report_text(struct pf_report *report, const char *name, const char *text);
void pf_report_bool(struct pf_report *report, const char *name, bool value);
/* A figure that this run could not have: null, and why as "<name>_why". */
void pf_report_null(struct pf_report *report, const char *name, const char *why);
/* A list of figures, as of rounds. */
void pf_report_list(struct pf_report *report, const char *name, const double *values,
                    uint32_t count);
/* A distribution for perf/report to draw: "<name>_quantiles_us": [[quantile, microseconds], ...].
 */
struct bf_hist;
void pf_report_hist(struct pf_report *report, const char *name, const struct bf_hist *nanoseconds);
/* Congestion control as getsockopt says for a connected socket. */
#define PF_CONGESTION_BYTES 32u
void pf_congestion(int socket_fd, char out[PF_CONGESTION_BYTES]);
void pf_report_congestion(struct pf_report *report, int socket_fd);

enum pf_bar_sense { PF_AT_MOST = 0, PF_AT_LEAST = 1 };

/* A bar of PERFORMANCE: {"value","unit","bar","ok"}. */
void pf_report_bar(struct pf_report *report, const char *id, double value, const char *unit,
                   enum pf_bar_sense sense, double bar);
/* Further conditions of a bar already given: ok becomes false unless |holds|. */
void pf_report_bar_and(struct pf_report *report, const char *id, bool holds);
/* A bar that this run could not measure: value null, ok null, and why. */
void pf_report_bar_null(struct pf_report *report, const char *id, const char *unit, double bar,
                        const char *why);

/* Prints the line on stdout and frees the report. Returns an exit code: 0, or 1 if a bar is missed
 * and the environment says BELFRY_PERF_STRICT. */
int pf_report_print(struct pf_report *report);

/* Median of |count| values (sorts a copy of at most PF_ROUNDS_MAX). */
#define PF_ROUNDS_MAX 64u
double pf_median(const double *values, uint32_t count);

/* Says something to the person watching, on stderr. */
__attribute__((format(printf, 1, 2))) void pf_say(const char *format, ...);
/* The same, and ends the program with code 1. */
__attribute__((format(printf, 1, 2))) _Noreturn void pf_die(const char *format, ...);
