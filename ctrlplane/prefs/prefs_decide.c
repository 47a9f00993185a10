/*
 * What preferences say of one delivery: at most three binary searches, no allocation. Pure: a part
 * of every decision (decide/preference.c).
 */
#include "prefs/prefs_impl.h"

#include <string.h>

bool bf_prefs_is_opted_out(const struct bf_prefs *prefs)
{
    return prefs && prefs->opt_out;
}

/* The row of |name| among |count| sorted ones from |rows|, or NULL. */
static const struct entry *find_entry(const struct bf_prefs *prefs, const struct entry *rows,
                                      unsigned count, struct bf_bytes name)
{
    unsigned low = 0;
    while (low < count) {
        unsigned middle = low + (count - low) / 2;
        const struct entry *row = &rows[middle];
        size_t common = row->name_len < name.len ? row->name_len : name.len;
        int order = common > 0 ? memcmp(prefs->names + row->name_at, name.at, common) : 0;
        if (order == 0 && row->name_len == name.len)
            return row;
        if (order < 0 || (order == 0 && row->name_len < name.len))
            low = middle + 1;
        else
            count = middle;
    }
    return NULL;
}

static bool is_said(const struct entry *row, enum bf_channel channel)
{
    return row && (row->choice.said & 1u << channel) != 0;
}

static bool is_on(struct choice choice, enum bf_channel channel)
{
    return (choice.on & 1u << channel) != 0;
}

enum bf_reason bf_prefs_decide(const struct bf_prefs *prefs, struct bf_bytes type,
                               struct bf_bytes category, struct bf_bytes topic,
                               enum bf_channel channel)
{
    if (!prefs)
        return BF_REASON_NONE;
    if (prefs->opt_out)
        return BF_REASON_OPT_OUT;
    const struct entry *categories = prefs->entries;
    const struct entry *types = categories + prefs->category_count;
    const struct entry *topics = types + prefs->type_count;
    if (topic.len > 0 && find_entry(prefs, topics, prefs->topic_count, topic))
        return BF_REASON_TOPIC_MUTE;
    const struct entry *by_type = find_entry(prefs, types, prefs->type_count, type);
    if (is_said(by_type, channel))
        return is_on(by_type->choice, channel) ? BF_REASON_NONE : BF_REASON_TYPE;
    const struct entry *by_category =
        category.len > 0 ? find_entry(prefs, categories, prefs->category_count, category) : NULL;
    if (is_said(by_category, channel))
        return is_on(by_category->choice, channel) ? BF_REASON_NONE : BF_REASON_CATEGORY;
    if ((prefs->channels.said & 1u << channel) != 0 && !is_on(prefs->channels, channel))
        return BF_REASON_CHANNEL;
    return BF_REASON_NONE;
}
