/* Filling a sim_answer. Used by the providers' pure parts; any thread. */
#pragma once

#include "sim_rng.h"
#include "sim_types.h"

/* Empties |a| without touching its buffers. */
static inline void sim_answer_init(struct sim_answer *a)
{
    a->status = 0;
    a->reason = "";
    a->authenticated = false;
    a->token = a->topic = (struct sim_slice){"", 0};
    a->id[0] = '\0';
    a->retry_after_s = 0;
    a->fields_count = 0;
    a->content_type = NULL;
    a->body_bytes = 0;
}

/* Adds a response field; one that does not fit is cut (values are ours, bounded). */
void sim_answer_add(struct sim_answer *a, const char *name, const char *value);
/* Sets the body, printf form; cut at SIM_ANSWER_BODY_BYTES_MAX. */
void sim_answer_body(struct sim_answer *a, const char *content_type, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
