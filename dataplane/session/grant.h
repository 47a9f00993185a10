/* Topics a token allows, kept per connection only if the token names some. Private to session/. */
#pragma once

#include "session/session.h"

/* Stores the claim's names. *ret_grant 0 when there are none. 0 or BF_ERR_NO_MEMORY. */
int bf_grant_store(struct bf_worker_core *core, const struct bf_claims *claims,
                   uint32_t *ret_grant);
/* Whether a name is allowed by the grant or is public. */
bool bf_grant_allows(const struct bf_session *s, uint32_t grant, struct bf_bytes topic);
/* A name, or a prefix that ends in '*'. */
bool bf_topic_matches(const char *rule, size_t rule_len, struct bf_bytes topic);
