/* What was wrong with a request, as an RFC 9457 problem. Any thread. */
#pragma once

#include <stdint.h>

/* Strings are copied in. */
struct bf_problem {
    int status;    /* HTTP status: 400, 401, 403, 404, 409, 413, 422, 429, 503 */
    char type[64]; /* last part of the problem's URN: "unknown-field", "unknown-user", ... */
    char title[96];
    char detail[256]; /* what happened, why, what to do */
    char field[96];   /* JSON path of the field, "" when none */
    uint32_t retry_after_s;
};

/* Fills all of |problem|; its title is the status's. |field| NULL: none. Quoted texts need not be
 * UTF-8: each ends before the first byte that is not. */
__attribute__((format(printf, 5, 6))) void bf_problem_set(struct bf_problem *problem, int status,
                                                          const char *type, const char *field,
                                                          const char *detail, ...);
