/* Spans of keys; see scrub.h. */
#include "store/scrub.h"

#include <stdlib.h>
#include <string.h>

#define SPANS_START 16u

static struct bf_bytes copy_bytes(struct bf_bytes from)
{
    char *at = malloc(from.len ? from.len : 1);
    if (at != NULL && from.len > 0)
        memcpy(at, from.at, from.len);
    return (struct bf_bytes){at, at != NULL ? from.len : 0};
}

void bf_spans_add(struct bf_spans *spans, struct bf_bytes from, struct bf_bytes to)
{
    if (spans->count == spans->cap) {
        uint32_t cap = spans->cap ? spans->cap * 2 : SPANS_START;
        struct bf_span *at = realloc(spans->at, cap * sizeof(*at));
        if (at == NULL) {
            spans->failed = true;
            return;
        }
        spans->at = at;
        spans->cap = cap;
    }
    struct bf_span span = {copy_bytes(from), copy_bytes(to)};
    spans->failed |= span.from.at == NULL || span.to.at == NULL;
    spans->at[spans->count++] = span;
}

void bf_spans_free(struct bf_spans *spans)
{
    for (uint32_t i = 0; i < spans->count; i++) {
        free((char *)(uintptr_t)spans->at[i].from.at);
        free((char *)(uintptr_t)spans->at[i].to.at);
    }
    free(spans->at);
    *spans = (struct bf_spans){0};
}
