/* See tables.h. A field that a table's file writes and reads has its column here, in its order. */
#include "store/tables.h"

#include <stddef.h>

#define COLUMN(name, form, kind, bytes, is_optional)                                               \
    {                                                                                              \
        name, form, kind, bytes, is_optional                                                       \
    }
#define U8(name)         COLUMN(name, BF_FORM_U8, BF_KIND_NUMBER, 0, false)
#define U16(name)        COLUMN(name, BF_FORM_U16, BF_KIND_NUMBER, 0, false)
#define U32(name)        COLUMN(name, BF_FORM_U32, BF_KIND_NUMBER, 0, false)
#define U64(name)        COLUMN(name, BF_FORM_U64, BF_KIND_NUMBER, 0, false)
#define TIME(name)       COLUMN(name, BF_FORM_U64, BF_KIND_TIME, 0, false)
#define ID(name)         COLUMN(name, BF_FORM_RAW, BF_KIND_ID, 16, false)
#define RAW(name, n)     COLUMN(name, BF_FORM_RAW, BF_KIND_BYTES, n, false)
#define PART(name)       COLUMN(name, BF_FORM_TEXT8, BF_KIND_TEXT, 0, false)
#define TEXT(name)       COLUMN(name, BF_FORM_TEXT16, BF_KIND_TEXT, 0, false)
#define LONG_TEXT(name)  COLUMN(name, BF_FORM_TEXT32, BF_KIND_TEXT, 0, false)
#define BYTES(name)      COLUMN(name, BF_FORM_TEXT16, BF_KIND_BYTES, 0, false)
#define JSON(name)       COLUMN(name, BF_FORM_TEXT32, BF_KIND_JSON, 0, false)
#define LIST(name)       COLUMN(name, BF_FORM_LIST, BF_KIND_TEXT, 0, false)
#define REST(name, kind) COLUMN(name, BF_FORM_REST, kind, 0, false)
/* Absent in rows of an earlier release, or where there is none. */
#define MAYBE(name, form, kind) COLUMN(name, form, kind, 0, true)
#define MAYBE_U8(name)          COLUMN(name, BF_FORM_U8, BF_KIND_NUMBER, 0, true)
#define MAYBE_U64(name)         COLUMN(name, BF_FORM_U64, BF_KIND_NUMBER, 0, true)
#define MAYBE_TIME(name)        COLUMN(name, BF_FORM_U64, BF_KIND_TIME, 0, true)
#define MAYBE_ID(name)          COLUMN(name, BF_FORM_RAW, BF_KIND_ID, 16, true)
#define MAYBE_TEXT(name)        COLUMN(name, BF_FORM_TEXT16, BF_KIND_TEXT, 0, true)

static const struct bf_column by_name[] = {REST("name", BF_KIND_TEXT)};
static const struct bf_column any_value[] = {REST("value", BF_KIND_BYTES)};
static const struct bf_column by_user[] = {PART("tenant"), PART("user_id")};
static const struct bf_column by_event[] = {ID("event_id")};

static const struct bf_column profile[] = {REST("profile", BF_KIND_JSON)};
static const struct bf_column prefs[] = {REST("preferences", BF_KIND_JSON)};

static const struct bf_column state[] = {
    U64("critical_head"),   U64("critical_ack_from"),
    U64("critical_ack_to"), U64("normal_head"),
    U64("normal_ack_from"), U64("normal_ack_to"),
    U64("bulk_head"),       U64("bulk_ack_from"),
    U64("bulk_ack_to"),     U32("unread"),
    U32("stored"),          U8("flags"),
    TIME("written_ms"),     MAYBE_TIME("unread_due_ms"),
};

static const struct bf_column inbox_key[] = {PART("tenant"), PART("user_id"), U8("lane"),
                                             U64("seq")};
static const struct bf_column inbox[] = {
    ID("message_id"),   ID("event_id"), U64("prev"),     TIME("created_ms"),
    TIME("changed_ms"), U32("flags"),   U32("collapse"), LONG_TEXT("fragment"),
};

static const struct bf_column by_message[] = {ID("message_id")};
/* Where the message lies; then, if its event had no other recipient, that event. */
static const struct bf_column message_id[] = {
    U64("user_hash"),
    U8("lane"),
    U64("seq"),
    MAYBE_ID("event_id"),
    MAYBE_TIME("event_expires_ms"),
    MAYBE_TEXT("user_id"),
    MAYBE_TIME("accepted_ms"),
    MAYBE_U64("bseq"),
    MAYBE_U8("target"),
    MAYBE_U8("event_lane"),
    MAYBE_U8("flags"),
    MAYBE_TEXT("tenant"),
    MAYBE_TEXT("producer"),
    MAYBE_TEXT("type"),
    MAYBE_TEXT("topic"),
    MAYBE_TEXT("traceparent"),
};

static const struct bf_column ack_key[] = {PART("tenant"), PART("user_id"), U8("lane"), U64("to")};
static const struct bf_column ack[] = {U64("from")};

static const struct bf_column event[] = {
    TIME("accepted_ms"), U64("bseq"),         U8("target"),       U8("lane"),
    U8("flags"),         TEXT("tenant"),      TEXT("producer"),   TEXT("type"),
    TEXT("topic"),       TEXT("traceparent"), LIST("recipients"),
};

static const struct bf_column outcome_key[] = {
    ID("event_id"), PART("tenant"),          PART("user_id"),
    U8("channel"),  MAYBE_ID("endpoint_id"), U16("attempt"),
};
static const struct bf_column outcome[] = {U8("status"), TIME("at_ms"), TEXT("reason")};
static const struct bf_column user_outcome_key[] = {
    PART("tenant"), PART("user_id"),         ID("event_id"),
    U8("channel"),  MAYBE_ID("endpoint_id"), U16("attempt"),
};

static const struct bf_column topic_key[] = {PART("tenant"), PART("topic")};
static const struct bf_column topic[] = {U8("carriage"), TIME("created_ms")};
static const struct bf_column subscriber_key[] = {PART("tenant"), PART("topic"), PART("user_id")};
static const struct bf_column subscription_key[] = {PART("tenant"), PART("user_id"), PART("topic")};
static const struct bf_column subscription[] = {U8("channels"), U8("deny"), JSON("filter")};

static const struct bf_column job[] = {
    U64("targeted"), TEXT("cursor"), BYTES("meta"), JSON("body"), MAYBE_U8("is_push_only"),
};

static const struct bf_column bcast_key[] = {U64("bseq")};
static const struct bf_column bcast[] = {ID("event_id"), TIME("created_ms"), TEXT("tenant"),
                                         TEXT("topic"), LONG_TEXT("fragment")};
static const struct bf_column bcast_id[] = {U64("bseq")};

static const struct bf_column dlq_key[] = {U8("channel"), TIME("at_ms"), ID("event_id"),
                                           MAYBE_U64("tag")};
static const struct bf_column dlq[] = {TEXT("reason"), BYTES("meta"), LONG_TEXT("body"),
                                       MAYBE("headers", BF_FORM_TEXT32, BF_KIND_BYTES)};

static const struct bf_column api_key_key[] = {RAW("hash", 32)};
static const struct bf_column api_key[] = {
    U32("scopes"),
    U32("rate_per_min"),
    TIME("created_ms"),
    TEXT("id"),
    TEXT("tenant"),
    TEXT("name"),
    MAYBE_TIME("expires_ms"),
    MAYBE_TIME("revoked_ms"),
    MAYBE_TEXT("replaced_by"),
};

static const struct bf_column idem_key[] = {REST("key", BF_KIND_BYTES)};
static const struct bf_column idem[] = {RAW("body_hash", 16), U16("status"), LONG_TEXT("answer")};

static const struct bf_column by_hash[] = {RAW("hash", 16)};
static const struct bf_column erased[] = {TIME("erased_ms"), TEXT("by")};
static const struct bf_column erasing_key[] = {TIME("erased_ms"), TIME("noted_ms"),
                                               RAW("hash", 16)};
static const struct bf_column erasing[] = {TIME("erased_ms"), TEXT("tenant"), TEXT("user_id"),
                                           REST("keys", BF_KIND_BYTES)};

static const struct bf_column device_key[] = {PART("tenant"), PART("user_id"), ID("device_id")};
static const struct bf_column device[] = {
    ID("id"),        U8("kind"),         U8("platform"),
    U8("state"),     TIME("created_ms"), TIME("registered_ms"),
    TIME("seen_ms"), TIME("dead_ms"),    RAW("token_hash", 16),
    TEXT("app"),     TEXT("locale"),     TEXT("name"),
    BYTES("sealed"), TEXT("reason"),
};
static const struct bf_column device_token[] = {PART("tenant"), PART("user_id"), ID("device_id")};

static const struct bf_column old_push_key[] = {U8("shard"), U8("lane"), TIME("not_before_ms"),
                                                ID("message_id")};
static const struct bf_column old_push[] = {
    PART("tenant"),         PART("user_id"),    ID("event_id"), ID("device_id"),
    TIME("created_ms"),     TIME("expires_ms"), U64("seq"),     U32("attempts"),
    U32("redrive"),         U64("collapse"),    BYTES("meta"),  LONG_TEXT("fragment"),
    LONG_TEXT("overrides"), TEXT("reason"),
};
static const struct bf_column old_push_collapse_key[] = {PART("tenant"), PART("user_id"),
                                                         ID("device_id"), U64("collapse")};

static const struct bf_column leg_key[] = {U8("partition"), U8("lane"), TIME("not_before_ms"),
                                           U8("channel"), ID("message_id")};
static const struct bf_column leg[] = {
    U8("kind"),
    U8("content"),
    U32("flags"),
    PART("tenant"),
    PART("user_id"),
    ID("event_id"),
    ID("endpoint_id"),
    TIME("created_ms"),
    TIME("expires_ms"),
    U64("seq"),
    U32("attempts"),
    U32("redrive"),
    U64("collapse"),
    TEXT("type"),
    TEXT("category"),
    TEXT("topic"),
    BYTES("meta"),
    LONG_TEXT("fragment"),
    LONG_TEXT("overrides"),
    TEXT("reason"),
};
static const struct bf_column leg_user_key[] = {PART("tenant"), PART("user_id"), ID("event_id"),
                                                ID("message_id")};
static const struct bf_column leg_collapse_key[] = {PART("tenant"), PART("user_id"), U8("channel"),
                                                    ID("endpoint_id"), U64("collapse")};
static const struct bf_column row_key[] = {REST("row_key", BF_KIND_BYTES)};

#define COLUMNS(list) (uint8_t)(sizeof(list) / sizeof((list)[0]))
#define KEY(list)     .key = (list), .key_columns = COLUMNS(list)
#define VALUE(list)   .value = (list), .value_columns = COLUMNS(list)
#define DROPS         .expiry = BF_EXPIRY_DROPS
#define STAYS         .expiry = BF_EXPIRY_STAYS
#define COUNTED_BY(c) .group_columns = 1, .group = {c}, .is_whole_key_only = true

const struct bf_table_def bf_tables[BF_T_COUNT] = {
    [BF_T_META] = {"meta", KEY(by_name), VALUE(any_value)},
    [BF_T_VALUE] = {"value", KEY(by_name), VALUE(any_value)},
    [BF_T_USER] = {"user", KEY(by_user), VALUE(profile), .is_whole_key_only = true},
    [BF_T_PREFS] = {"preferences", KEY(by_user), VALUE(prefs)},
    [BF_T_STATE] = {"state", KEY(by_user), VALUE(state)},
    [BF_T_INBOX] = {"inbox", KEY(inbox_key), VALUE(inbox), DROPS},
    [BF_T_ID] = {"message_id", KEY(by_message), VALUE(message_id), DROPS},
    [BF_T_ACK] = {"ack", KEY(ack_key), VALUE(ack)},
    [BF_T_EVENT] = {"event", KEY(by_event), VALUE(event), DROPS},
    [BF_T_OUTCOME] = {"outcome", KEY(outcome_key), VALUE(outcome), DROPS},
    [BF_T_USER_OUTCOME] = {"user_outcome", KEY(user_outcome_key), DROPS},
    [BF_T_TOPIC] = {"topic", KEY(topic_key), VALUE(topic)},
    [BF_T_SUBSCRIBER] = {"subscriber", KEY(subscriber_key), VALUE(subscription)},
    [BF_T_SUBSCRIPTION] = {"subscription", KEY(subscription_key), VALUE(subscription)},
    [BF_T_JOB] = {"job", KEY(by_event), VALUE(job)},
    [BF_T_BCAST] = {"broadcast", KEY(bcast_key), VALUE(bcast), DROPS},
    [BF_T_BCAST_ID] = {"broadcast_id", KEY(by_event), VALUE(bcast_id), DROPS},
    [BF_T_DLQ] = {"dead_letter", KEY(dlq_key), VALUE(dlq), COUNTED_BY(0),
                  .counting = BF_COUNTED_EACH},
    [BF_T_API_KEY] = {"api_key", KEY(api_key_key), VALUE(api_key)},
    [BF_T_IDEM] = {"idempotency", KEY(idem_key), VALUE(idem), DROPS},
    [BF_T_ERASED] = {"erased", KEY(by_hash), VALUE(erased)},
    [BF_T_DEVICE] = {"device", KEY(device_key), VALUE(device)},
    [BF_T_DEVICE_TOKEN] = {"device_token", KEY(by_hash), VALUE(device_token)},
    [BF_T_OLD_PUSH] = {"old_push", KEY(old_push_key), VALUE(old_push), STAYS},
    [BF_T_OLD_PUSH_USER] = {"old_push_of_user", KEY(leg_user_key), VALUE(row_key), STAYS},
    [BF_T_OLD_PUSH_COLLAPSE] = {"old_push_collapse", KEY(old_push_collapse_key), VALUE(row_key),
                                STAYS},
    [BF_T_LEG_DONE] = {"leg_done", KEY(by_hash), DROPS},
    [BF_T_ERASING] = {"erasing", KEY(erasing_key), VALUE(erasing)},
    /* counted by lane and channel */
    [BF_T_LEG] = {"leg", KEY(leg_key), VALUE(leg), STAYS, .group_columns = 2, .group = {1, 3},
                  .is_whole_key_only = true, .counting = BF_COUNTED_BLIND},
    [BF_T_LEG_USER] = {"leg_of_user", KEY(leg_user_key), VALUE(row_key), STAYS},
    [BF_T_LEG_COLLAPSE] = {"leg_collapse", KEY(leg_collapse_key), VALUE(row_key), STAYS},
};

/* Bytes of a column whose size is fixed; 0: it says itself how long it is. */
static size_t fixed_bytes(const struct bf_column *c)
{
    static const uint8_t sizes[] = {
        [BF_FORM_U8] = 1, [BF_FORM_U16] = 2, [BF_FORM_U32] = 4, [BF_FORM_U64] = 8};
    if (c->form == BF_FORM_RAW)
        return c->bytes;
    return c->form < sizeof(sizes) ? sizes[c->form] : 0;
}

int bf_table_group(struct bf_bytes key)
{
    struct bf_reader r = {.buf = (const uint8_t *)key.at, .len = key.len};
    uint8_t table = bf_get_u8(&r), values[2] = {0};
    if (table >= BF_T_COUNT || bf_tables[table].group_columns == 0)
        return -1;
    const struct bf_table_def *t = &bf_tables[table];
    for (unsigned i = 0, found = 0; found < t->group_columns; i++) {
        const struct bf_column *c = &t->key[i];
        if (i == t->group[found])
            values[found++] = bf_get_u8(&r);
        else
            bf_get_raw(&r, c->form == BF_FORM_TEXT8 ? bf_get_u8(&r) : fixed_bytes(c));
    }
    if (r.failed)
        return -1;
    return t->group_columns == 1 ? values[0] : BF_GROUP_OF_TWO(values[0], values[1]);
}
