/*
 * The part of Criterion that our unit tests use, for the TSan build alone: Criterion's own runner
 * maps an arena where TSan keeps its shadow and cannot start. Each test runs in a child process; the
 * last line has Criterion's form. Header-only: a test program is one file. Single-threaded runner.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct cr_options {
    void (*init)(void);
    void (*fini)(void);
    double timeout; /* seconds; 0: the runner's own */
    int signal;     /* the test must die of it */
    int exit_code;
    bool disabled;
    const char *description;
};

struct cr_test {
    const char *suite;
    const char *name; /* NULL: the options of the whole suite */
    void (*run)(void);
    struct cr_options options;
    struct cr_test *next;
};

static struct cr_test *cr_tests;
static bool cr_has_failed;

#define CR_TIMEOUT_S 120u

static inline void cr_register(struct cr_test *test)
{
    test->next = cr_tests;
    cr_tests = test;
}

#define CR_REGISTER(id, suite_, name_, run_, ...)                                                  \
    static struct cr_test id = {                                                                   \
        .suite = suite_, .name = name_, .run = run_, .options = {__VA_ARGS__}};                    \
    __attribute__((constructor)) static void id##_register(void)                                   \
    {                                                                                              \
        cr_register(&id);                                                                          \
    }

#define Test(suite_, name_, ...)                                                                   \
    static void cr_run_##suite_##_##name_(void);                                                   \
    CR_REGISTER(cr_test_##suite_##_##name_, #suite_, #name_, cr_run_##suite_##_##name_,            \
                __VA_ARGS__)                                                                       \
    static void cr_run_##suite_##_##name_(void)

#define TestSuite(suite_, ...)                                                                     \
    CR_REGISTER(cr_suite_##suite_, #suite_, NULL, NULL, __VA_ARGS__)                               \
    _Static_assert(1, "takes the semicolon")

#define CR_CHECK(is_fatal, cond, text, ...)                                                        \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "[----] %s:%d: failed: %s ", __FILE__, __LINE__, text);                \
            fprintf(stderr, " " __VA_ARGS__);                                                      \
            fprintf(stderr, "\n");                                                                 \
            cr_has_failed = true;                                                                  \
            if (is_fatal)                                                                          \
                _exit(1);                                                                          \
        }                                                                                          \
    } while (0)

#define cr_assert(c, ...)            CR_CHECK(true, c, #c, ##__VA_ARGS__)
#define cr_assert_not(c, ...)        CR_CHECK(true, !(c), "not " #c, ##__VA_ARGS__)
#define cr_assert_eq(a, b, ...)      CR_CHECK(true, (a) == (b), #a " == " #b, ##__VA_ARGS__)
#define cr_assert_neq(a, b, ...)     CR_CHECK(true, (a) != (b), #a " != " #b, ##__VA_ARGS__)
#define cr_assert_lt(a, b, ...)      CR_CHECK(true, (a) < (b), #a " < " #b, ##__VA_ARGS__)
#define cr_assert_leq(a, b, ...)     CR_CHECK(true, (a) <= (b), #a " <= " #b, ##__VA_ARGS__)
#define cr_assert_gt(a, b, ...)      CR_CHECK(true, (a) > (b), #a " > " #b, ##__VA_ARGS__)
#define cr_assert_geq(a, b, ...)     CR_CHECK(true, (a) >= (b), #a " >= " #b, ##__VA_ARGS__)
#define cr_assert_null(p, ...)       CR_CHECK(true, (p) == NULL, #p " is NULL", ##__VA_ARGS__)
#define cr_assert_not_null(p, ...)   CR_CHECK(true, (p) != NULL, #p " is not NULL", ##__VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)  CR_CHECK(true, strcmp(a, b) == 0, #a " equals " #b, ##__VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) CR_CHECK(true, strcmp(a, b) != 0, #a " differs from " #b, ##__VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...) CR_CHECK(true, memcmp(a, b, n) == 0, #a " equals " #b, ##__VA_ARGS__)
#define cr_assert_fail(...)          CR_CHECK(true, false, "reached", ##__VA_ARGS__)
#define cr_expect(c, ...)            CR_CHECK(false, c, #c, ##__VA_ARGS__)
#define cr_expect_not(c, ...)        CR_CHECK(false, !(c), "not " #c, ##__VA_ARGS__)
#define cr_expect_eq(a, b, ...)      CR_CHECK(false, (a) == (b), #a " == " #b, ##__VA_ARGS__)
#define cr_expect_neq(a, b, ...)     CR_CHECK(false, (a) != (b), #a " != " #b, ##__VA_ARGS__)
#define cr_expect_lt(a, b, ...)      CR_CHECK(false, (a) < (b), #a " < " #b, ##__VA_ARGS__)
#define cr_expect_leq(a, b, ...)     CR_CHECK(false, (a) <= (b), #a " <= " #b, ##__VA_ARGS__)
#define cr_expect_gt(a, b, ...)      CR_CHECK(false, (a) > (b), #a " > " #b, ##__VA_ARGS__)
#define cr_expect_geq(a, b, ...)     CR_CHECK(false, (a) >= (b), #a " >= " #b, ##__VA_ARGS__)
#define cr_expect_null(p, ...)       CR_CHECK(false, (p) == NULL, #p " is NULL", ##__VA_ARGS__)
#define cr_expect_not_null(p, ...)   CR_CHECK(false, (p) != NULL, #p " is not NULL", ##__VA_ARGS__)
#define cr_expect_str_eq(a, b, ...)  CR_CHECK(false, strcmp(a, b) == 0, #a " equals " #b, ##__VA_ARGS__)
#define cr_expect_str_neq(a, b, ...) CR_CHECK(false, strcmp(a, b) != 0, #a " differs from " #b, ##__VA_ARGS__)
#define cr_log_info(...)              (fprintf(stderr, __VA_ARGS__), fputc(10, stderr))
#define cr_expect_arr_eq(a, b, n, ...) CR_CHECK(false, memcmp(a, b, n) == 0, #a " equals " #b, ##__VA_ARGS__)

static struct cr_options cr_suite_options(const char *suite)
{
    for (struct cr_test *t = cr_tests; t; t = t->next) {
        if (!t->name && strcmp(t->suite, suite) == 0)
            return t->options;
    }
    return (struct cr_options){0};
}

static _Noreturn void cr_child(const struct cr_test *test, const struct cr_options *suite)
{
    double timeout = test->options.timeout > 0 ? test->options.timeout : suite->timeout;
    alarm(timeout > 0 ? (unsigned)timeout + 1u : CR_TIMEOUT_S);
    void (*init)(void) = test->options.init ? test->options.init : suite->init;
    void (*fini)(void) = test->options.fini ? test->options.fini : suite->fini;
    if (init)
        init();
    test->run();
    if (fini)
        fini();
    exit(cr_has_failed ? 1 : test->options.exit_code); /* exit: TSan reports at its end */
}

static bool cr_run(const struct cr_test *test)
{
    struct cr_options suite = cr_suite_options(test->suite);
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        cr_child(test, &suite);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return false;
    int wanted = test->options.signal ? test->options.signal : suite.signal;
    bool is_good = wanted ? WIFSIGNALED(status) && WTERMSIG(status) == wanted
                          : WIFEXITED(status) && WEXITSTATUS(status) == test->options.exit_code;
    if (!is_good)
        fprintf(stderr, "[FAIL] %s::%s (status %x)\n", test->suite, test->name, (unsigned)status);
    return is_good;
}

int main(void)
{
    int passed = 0, failed = 0;
    for (struct cr_test *t = cr_tests; t; t = t->next) {
        if (!t->name || t->options.disabled)
            continue;
        if (cr_run(t))
            passed++;
        else
            failed++;
    }
    fprintf(stderr, "[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: 0\n",
            passed + failed, passed, failed);
    return failed ? 1 : 0;
}
