/*
 * The tables of the store: their numbers, and of what columns a row's key and value are made. A row
 * is passed as canonical bytes (keys.h, and the bf_put_... of its table's file); the description
 * says how these bytes divide into columns. An engine that keeps bytes does not need it; one with
 * typed columns splits rows by it and joins them again. Constant; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

/* First byte of every key; the numbers are on disk: never reuse one. */
enum bf_table {
    BF_T_META = 1,
    BF_T_VALUE = 2,
    BF_T_USER = 3,
    BF_T_PREFS = 4,
    BF_T_STATE = 5,
    BF_T_INBOX = 6,
    BF_T_ID = 7,
    BF_T_ACK = 8,
    BF_T_EVENT = 9,
    BF_T_OUTCOME = 10,
    BF_T_USER_OUTCOME = 11, /* which outcomes name a user: erasure finds them */
    BF_T_TOPIC = 12,
    BF_T_SUBSCRIBER = 13,
    BF_T_SUBSCRIPTION = 14,
    BF_T_JOB = 15,
    BF_T_BCAST = 16,
    BF_T_BCAST_ID = 17,
    BF_T_DLQ = 18,
    BF_T_API_KEY = 19,
    BF_T_IDEM = 20,
    BF_T_ERASED = 21,
    BF_T_DEVICE = 22,
    BF_T_DEVICE_TOKEN = 23,
    BF_T_OLD_PUSH = 24, /* the queue of a former version, with its two indexes (legs_migrate.c) */
    BF_T_OLD_PUSH_USER = 25,
    BF_T_OLD_PUSH_COLLAPSE = 26,
    BF_T_LEG_DONE = 27,
    BF_T_ERASING = 28, /* erasures whose bytes are still to leave the disk */
    BF_T_LEG = 29,
    BF_T_LEG_USER = 30, /* which queued legs are a user's */
    BF_T_LEG_COLLAPSE = 31,
    BF_T_COUNT
};

/* How a column lies in the bytes. */
enum bf_column_form {
    BF_FORM_U8 = 1, /* numbers: big-endian in a key, so that they sort; little-endian in a value */
    BF_FORM_U16 = 2,
    BF_FORM_U32 = 3,
    BF_FORM_U64 = 4,
    BF_FORM_RAW = 5,    /* |bytes| of them */
    BF_FORM_TEXT8 = 6,  /* a length of one byte, then the bytes */
    BF_FORM_TEXT16 = 7, /* a length of two bytes, little-endian */
    BF_FORM_TEXT32 = 8, /* of four */
    BF_FORM_LIST = 9,   /* a count of four bytes, then as many of TEXT16 */
    BF_FORM_REST = 10,  /* all that follows */
};

/* What a column holds. */
enum bf_column_kind {
    BF_KIND_NUMBER = 1,
    BF_KIND_TIME = 2, /* wall ms */
    BF_KIND_ID = 3,   /* struct bf_id */
    BF_KIND_BYTES = 4,
    BF_KIND_TEXT = 5,
    BF_KIND_JSON = 6,
};

struct bf_column {
    const char *name;
    uint8_t form;  /* enum bf_column_form */
    uint8_t kind;  /* enum bf_column_kind */
    uint8_t bytes; /* of BF_FORM_RAW */
    /* May be absent: in a value, together with all columns after it, if an earlier release wrote
     * the row; in a key, if only so many bytes are left as the columns after it take. */
    bool is_optional;
};

enum bf_expiry {
    BF_EXPIRY_NONE = 0,  /* values have no expiry (value.h) */
    BF_EXPIRY_DROPS = 1, /* the engine may drop a row whose expiry has passed; readers skip it */
    BF_EXPIRY_STAYS = 2, /* has the field, but only the owner of the table may delete the row */
};

/* Whether an engine can tell how many rows there are in a group of a table. */
enum bf_counting {
    BF_COUNTED_NOT = 0,
    BF_COUNTED_EACH = 1,  /* a row may be put over itself, or deleted where none is */
    BF_COUNTED_BLIND = 2, /* a writer puts only new rows, and deletes only rows that exist */
};

#define BF_COLUMNS_MAX 24u

struct bf_table_def {
    const char *name; /* NULL: no such table */
    const struct bf_column *key, *value;
    uint8_t key_columns, value_columns;
    uint8_t expiry;   /* enum bf_expiry */
    uint8_t counting; /* enum bf_counting */
    /* Rows are counted by one or two key columns of one byte: their indexes, in order. */
    uint8_t group_columns;
    uint8_t group[2];
    /* No two rows of it are ever deleted by a common prefix: what is counted, or known by key. */
    bool is_whole_key_only;
};

extern const struct bf_table_def bf_tables[BF_T_COUNT];

static inline bool bf_table_drops_expired(uint8_t table)
{
    return table < BF_T_COUNT && bf_tables[table].expiry == BF_EXPIRY_DROPS;
}

/* A group is the value of the one column, or made of two small ones. */
#define BF_GROUPS                      256u
#define BF_GROUP_OF_TWO(first, second) ((uint8_t)(((first)&7u) << 5 | ((second)&31u)))
/* The group that the row of |key| is counted in; -1: the key is not of its table's form. */
int bf_table_group(struct bf_bytes key);
