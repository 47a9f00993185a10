/* Inside of push_request: what the builders of the three providers share. One build, one thread. */
#pragma once

#include "channels/push/push_request.h"

struct bf_push_build {
    const struct bf_push_note *note;
    const struct bf_push_target *target;
    yyjson_val *options; /* overrides of this provider, or NULL */
    struct bf_writer w;
    size_t count_at, body_at; /* places patched when the fields, the body are complete */
    char *why;
    bool is_trial; /* nothing is encrypted: for nobody */
};

/* An object being written: members separated by commas. */
struct bf_push_object {
    struct bf_writer *w;
    bool has_members;
};

__attribute__((format(printf, 3, 4))) int bf_push_refuse(struct bf_push_build *b, int rc,
                                                         const char *format, ...);
/* Path, then header fields, then the body; each step once, in this order. */
void bf_push_begin(struct bf_push_build *b, const char *prefix, struct bf_bytes path,
                   const char *suffix);
void bf_push_field(struct bf_push_build *b, const char *name, struct bf_bytes value);
void bf_push_field_text(struct bf_push_build *b, const char *name, const char *value);
void bf_push_field_uint(struct bf_push_build *b, const char *name, uint64_t value);
void bf_push_body_begin(struct bf_push_build *b);
/* Bytes of the body so far. */
size_t bf_push_body_len(const struct bf_push_build *b);

void bf_push_object_begin(struct bf_push_object *o, struct bf_writer *w);
void bf_push_object_end(struct bf_push_object *o);
void bf_push_key(struct bf_push_object *o, struct bf_bytes key);
/* Left out when |value| is empty. */
void bf_push_put_text(struct bf_push_object *o, const char *key, struct bf_bytes value);
void bf_push_put_id(struct bf_push_object *o, const char *key, const struct bf_id *id);
/* Left out when NULL. */
void bf_push_put_value(struct bf_push_object *o, const char *key, yyjson_val *val);
/* All members of |object| (NULL: none). */
void bf_push_put_members(struct bf_push_object *o, yyjson_val *object);

/* Overrides. Absent: the fallback, untouched, or NULL. Of the wrong kind: BF_ERR_MALFORMED. */
int bf_push_check_options(struct bf_push_build *b, const char *const *names, size_t count);
int bf_push_option_object(struct bf_push_build *b, const char *name, yyjson_val **ret);
int bf_push_option_text(struct bf_push_build *b, const char *name, struct bf_bytes *ret);
int bf_push_option_uint(struct bf_push_build *b, const char *name, uint64_t max, uint64_t *ret,
                        bool *ret_is_given);
/* Seconds that the note is still worth something, rounded up. */
uint64_t bf_push_ttl_s(const struct bf_push_note *note);
/* aps of a notification that people see, without its braces' commas broken: members of |over| win.
 */
void bf_push_put_aps_alert(struct bf_push_object *aps, const struct bf_push_note *note,
                           yyjson_val *over);

int bf_push_build_apns(struct bf_push_build *b);
int bf_push_build_fcm(struct bf_push_build *b);
int bf_push_build_webpush(struct bf_push_build *b);
