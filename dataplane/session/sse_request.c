/* See sse_request.h. */
#include "session/sse_request.h"

#include "belfry/base/plain_text.h"
#include "proto/http1/query.h"

static int read_topics(const struct bf_upgrade *up, struct bf_sse_request *ret)
{
    struct bf_client_msg *m = &ret->msg;
    struct bf_bytes list = {0};
    int rc = bf_query_get(up->query, BF_BYTES("topics"), ret->topics_text, sizeof(ret->topics_text),
                          &list);
    if (rc < 0 || bf_text_has_control(list.at, list.len))
        return -400;
    while (list.len > 0) {
        const char *comma = memchr(list.at, ',', list.len);
        size_t n = comma ? (size_t)(comma - list.at) : list.len;
        if (m->topic_count == BF_CONN_TOPICS_MAX)
            return -400;
        if (n > 0)
            m->topics[m->topic_count++] = (struct bf_bytes){.at = list.at, .len = n};
        list.at += n + (comma != NULL);
        list.len -= n + (comma != NULL);
    }
    return 0;
}

/* An EventSource sends the header by itself when it reconnects; the query is for its first request,
 * if the page remembers where it was. */
static int read_resume(const struct bf_upgrade *up, struct bf_sse_request *ret)
{
    struct bf_client_msg *m = &ret->msg;
    struct bf_bytes text = up->last_event_id;
    if (text.len == 0) {
        int rc = bf_query_get(up->query, BF_BYTES("last_event_id"), ret->id_text,
                              sizeof(ret->id_text), &text);
        if (rc < 0)
            return rc;
    }
    if (text.len == 0 || bf_sse_id_parse(text, &ret->resume) != 0)
        return 0;
    m->has_resume = true;
    m->resume_epoch = (struct bf_bytes){.at = ret->resume.epoch, .len = ret->resume.epoch_len};
    memcpy(m->resume_seq, ret->resume.to, sizeof(m->resume_seq));
    m->has_resume_b = true;
    m->resume_b = ret->resume.b;
    return 0;
}

int bf_sse_request_read(const struct bf_upgrade *up, struct bf_sse_request *ret,
                        const char **ret_why)
{
    ret->msg = (struct bf_client_msg){.kind = BF_CM_CONNECT};
    ret->resume = (struct bf_sse_id){0};
    ret->token = up->bearer;
    *ret_why = "the token in the query does not decode";
    if (ret->token.len == 0 && bf_query_get(up->query, BF_BYTES("token"), ret->token_text,
                                            sizeof(ret->token_text), &ret->token) < 0)
        return -400;
    *ret_why = "device must have at most 64 bytes, none of them a control character";
    if (bf_query_get(up->query, BF_BYTES("device"), ret->device_text, sizeof(ret->device_text),
                     &ret->msg.device) < 0 ||
        bf_text_has_control(ret->msg.device.at, ret->msg.device.len))
        return -400;
    *ret_why = "at most 64 topics, separated by commas, without control characters";
    if (read_topics(up, ret) != 0)
        return -400;
    *ret_why = "last_event_id does not decode";
    return read_resume(up, ret);
}
