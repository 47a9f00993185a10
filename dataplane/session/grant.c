/* See grant.h. */
#include "session/grant.h"

#include <string.h>

#include "belfry/base/err.h"

bool bf_topic_matches(const char *rule, size_t rule_len, struct bf_bytes topic)
{
    if (rule_len > 0 && rule[rule_len - 1] == '*')
        return topic.len >= rule_len - 1 && memcmp(rule, topic.at, rule_len - 1) == 0;
    return topic.len == rule_len && memcmp(rule, topic.at, rule_len) == 0;
}

int bf_grant_store(struct bf_worker_core *core, const struct bf_claims *claims, uint32_t *ret_grant)
{
    uint32_t first = 0;
    for (uint32_t i = 0; i < claims->topic_count; i++) {
        uint32_t need = 1u + claims->topic_len[i];
        struct bf_grant *grant = first ? bf_slab_at(&core->grants, first) : NULL;
        if (!grant || grant->len + need > BF_GRANT_BYTES_MAX) {
            uint32_t fresh = bf_slab_take(&core->grants);
            if (fresh == 0) {
                for (uint32_t at = first; at != 0;) {
                    uint32_t next = ((struct bf_grant *)bf_slab_at(&core->grants, at))->next;
                    bf_slab_put(&core->grants, at);
                    at = next;
                }
                return BF_ERR_NO_MEMORY;
            }
            grant = bf_slab_at(&core->grants, fresh);
            grant->next = first;
            grant->len = 0;
            first = fresh;
        }
        grant->bytes[grant->len] = claims->topic_len[i];
        memcpy(&grant->bytes[grant->len + 1], claims->topics[i], claims->topic_len[i]);
        grant->len = (uint16_t)(grant->len + need);
    }
    *ret_grant = first;
    return 0;
}

bool bf_grant_allows(const struct bf_session *s, uint32_t grant, struct bf_bytes topic)
{
    for (uint32_t i = 0; i < s->public_count; i++) {
        if (bf_topic_matches(s->public_topics[i].text, s->public_topics[i].len, topic))
            return true;
    }
    while (grant != 0) {
        const struct bf_grant *g = bf_slab_at(&s->core->grants, grant);
        for (uint32_t at = 0; at < g->len; at += 1u + g->bytes[at]) {
            if (bf_topic_matches((const char *)&g->bytes[at + 1], g->bytes[at], topic))
                return true;
        }
        grant = g->next;
    }
    return false;
}
