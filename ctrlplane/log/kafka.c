/* Kafka engine (librdkafka). */
#include "belfry/base/err.h"
#include "log/blog_impl.h"
#include "log/log_impl.h"

#include <stdio.h>

int bf_log_kafka_open(const struct bf_conf *conf, struct bf_store *store,
                      const struct bf_log_hooks *hooks, struct bf_log **ret, char *err,
                      size_t err_len)
{
    (void)conf, (void)store, (void)hooks, (void)ret;
    snprintf(err, err_len, "log.engine kafka is not part of this build");
    return BF_ERR_UNSUPPORTED;
}

int bf_blog_kafka_open(const struct bf_conf *conf, struct bf_store *store,
                       void (*on_new)(void *arg, uint64_t bseq), void *arg, struct bf_blog **ret,
                       char *err, size_t err_len)
{
    (void)conf, (void)store, (void)on_new, (void)arg, (void)ret;
    snprintf(err, err_len, "log.engine kafka is not part of this build");
    return BF_ERR_UNSUPPORTED;
}
