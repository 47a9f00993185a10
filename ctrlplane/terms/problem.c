/* RFC 9457 problems in words; see problem.h. */
#include "terms/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "belfry/base/text.h"
#include "belfry/base/utf8.h"

static const char *status_title(int status)
{
    switch (status) {
    case 400:
        return "Bad request";
    case 401:
        return "Not authenticated";
    case 403:
        return "Not allowed";
    case 404:
        return "Not found";
    case 405:
        return "Method not allowed";
    case 408:
        return "Too slow";
    case 409:
        return "Conflict";
    case 413:
        return "Too large";
    case 414:
        return "Path too long";
    case 415:
        return "Unsupported media type";
    case 417:
        return "Expectation not met";
    case 422:
        return "Cannot be processed";
    case 429:
        return "Too many requests";
    case 431:
        return "Headers too large";
    case 501:
        return "Not built yet";
    case 503:
        return "Temporarily unavailable";
    case 505:
        return "HTTP version not spoken";
    default:
        return "Internal error";
    }
}

/* What a producer sent may be quoted, and need not be UTF-8: the answer ends before it. */
static void trim_utf8(char *text)
{
    size_t len = strlen(text);
    size_t valid = bf_utf8_valid_bytes((struct bf_bytes){.at = text, .len = len});
    text[valid] = '\0';
}

void bf_problem_set(struct bf_problem *problem, int status, const char *type, const char *field,
                    const char *detail, ...)
{
    va_list args;
    *problem = (struct bf_problem){.status = status};
    snprintf(problem->type, sizeof(problem->type), "%s", type);
    snprintf(problem->title, sizeof(problem->title), "%s", status_title(status));
    bf_format(problem->field, sizeof(problem->field), "%s", field ? field : "");
    va_start(args, detail);
    bf_vformat(problem->detail, sizeof(problem->detail), detail, args);
    va_end(args);
    trim_utf8(problem->detail);
    trim_utf8(problem->field);
}
