/*
 * One error space for both planes: 0 is success, -1..-999 is -errno, own codes start at -1001.
 * An int therefore carries either; bf_err_text() words both. Lowest layer: libc only.
 */
#pragma once

#include <string.h>

#define BF_ERR_LIST(X)                                                                             \
    X(BF_ERR_FULL, -1001, "the queue is full")                                                     \
    X(BF_ERR_MALFORMED, -1002, "malformed input")                                                  \
    X(BF_ERR_TOO_LARGE, -1003, "larger than the limit")                                            \
    X(BF_ERR_UTF8, -1004, "not valid UTF-8")                                                       \
    X(BF_ERR_UNKNOWN_USER, -1005, "unknown user")                                                  \
    X(BF_ERR_NOT_FOUND, -1006, "not found")                                                        \
    X(BF_ERR_CONFLICT, -1007, "conflicts with what is stored")                                     \
    X(BF_ERR_DENIED, -1008, "not allowed")                                                         \
    X(BF_ERR_EXPIRED, -1009, "expired")                                                            \
    X(BF_ERR_AWAY, -1010, "the other process is away")                                             \
    X(BF_ERR_CONTRACT, -1011, "shared-memory contract differs; restart the dataplane")             \
    X(BF_ERR_CORRUPT, -1012, "stored or shared data is corrupt")                                   \
    X(BF_ERR_STORE, -1013, "the store refused the write")                                          \
    X(BF_ERR_LOG, -1014, "the log refused the append")                                             \
    X(BF_ERR_OWNED, -1015, "another process owns this side")                                       \
    X(BF_ERR_UNSUPPORTED, -1016, "not supported by this build")                                    \
    X(BF_ERR_NO_MEMORY, -1017, "out of the memory set aside at start")

enum bf_err {
    BF_OK = 0,
#define X(name, value, text) name = value,
    BF_ERR_LIST(X)
#undef X
};

/* Text for any code of the space above. The pointer is static (or strerror's); any thread. */
static inline const char *bf_err_text(int err)
{
    switch (err) {
    case BF_OK:
        return "ok";
#define X(name, value, text)                                                                       \
    case name:                                                                                     \
        return text;
        BF_ERR_LIST(X)
#undef X
    default:
        return strerror(err < 0 ? -err : err);
    }
}
