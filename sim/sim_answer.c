/* Filling a sim_answer: see sim_answer.h. */
#include "sim_answer.h"

#include <stdarg.h>
#include <stdio.h>

#include "sim_text.h"

void sim_answer_add(struct sim_answer *a, const char *name, const char *value)
{
    if (a->fields_count == SIM_ANSWER_FIELDS_MAX)
        return;
    struct sim_answer_field *f = &a->fields[a->fields_count++];
    f->name = name;
    sim_text_copy(f->value, sizeof(f->value), (struct sim_slice){value, (uint32_t)strlen(value)});
}

void sim_answer_body(struct sim_answer *a, const char *content_type, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(a->body, sizeof(a->body), format, args);
    va_end(args);
    a->body_bytes = n < 0 ? 0 : (size_t)n < sizeof(a->body) ? (uint32_t)n : sizeof(a->body) - 1;
    a->content_type = content_type;
}
