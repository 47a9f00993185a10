/* See verdict.h. */
#include "channels/verdict.h"

const char *bf_class_name(enum bf_class class)
{
    static const char *const names[BF_CLASS_COUNT] = {
        "ok", "dead_token", "bad_request", "auth", "retry", "connection",
    };
    return (unsigned)class < BF_CLASS_COUNT ? names[class] : "?";
}
