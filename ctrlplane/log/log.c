/* The log: chooses the engine and calls it. Threads as in log.h. */
#include "log/log.h"

#include <stdio.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/conf/conf.h"
#include "log/log_impl.h"

int bf_log_open(const struct bf_conf *conf, struct bf_store *store,
                const struct bf_log_hooks *hooks, struct bf_log **ret, char *err, size_t err_len)
{
    if (strcmp(conf->log_engine, "embedded") == 0)
        return bf_log_embedded_open(conf, store, hooks, ret, err, err_len);
    if (strcmp(conf->log_engine, "kafka") == 0)
        return bf_log_kafka_open(conf, store, hooks, ret, err, err_len);
    snprintf(err, err_len, "log.engine is \"%s\"; it can be embedded or kafka", conf->log_engine);
    return BF_ERR_UNSUPPORTED;
}

int bf_log_check(const struct bf_conf *conf, char *err, size_t err_len)
{
    return strcmp(conf->log_engine, "kafka") == 0 ? bf_log_kafka_check(conf, err, err_len) : 0;
}

void bf_log_close(struct bf_log *log)
{
    if (log != NULL)
        log->ops->close(log);
}

int bf_log_append(struct bf_log *log, const struct bf_log_entry *entry, bf_log_done_fn done,
                  void *arg)
{
    return log->ops->append(log, entry, done, arg);
}

int bf_log_get_idem(struct bf_log *log, struct bf_bytes key, uint64_t now_ms,
                    int (*use)(void *arg, const struct bf_idem_row *row), void *arg)
{
    return log->ops->get_idem(log, key, now_ms, use, arg);
}

int bf_log_poll(struct bf_log *log, struct bf_log_record *records, int max, uint32_t timeout_ms)
{
    return log->ops->poll(log, records, max, timeout_ms);
}

void bf_log_free_records(struct bf_log *log, struct bf_log_record *records, int count)
{
    log->ops->free_records(log, records, count);
}

void bf_log_keep(struct bf_log *log)
{
    if (log->ops->keep)
        log->ops->keep(log);
}

void bf_log_pause(struct bf_log *log, uint32_t partition, bool paused)
{
    log->ops->pause(log, partition, paused);
}

int bf_log_commit(struct bf_log *log, uint32_t partition, uint32_t assignment, int64_t offset)
{
    return log->ops->commit(log, partition, assignment, offset);
}

void bf_log_health(struct bf_log *log, struct bf_log_health *ret)
{
    log->ops->health(log, ret);
}

int bf_log_erase(struct bf_log *log, bf_log_match_fn match, void *arg, const struct bf_pace *pace)
{
    return log->ops->erase ? log->ops->erase(log, match, arg, pace) : 0;
}

void bf_log_stop_erase(struct bf_log *log)
{
    if (log->ops->stop_erase)
        log->ops->stop_erase(log);
}

int bf_log_checkpoint(struct bf_log *log, const char *dir, int (*first)(void *arg), void *arg,
                      char *err, size_t err_len)
{
    return log->ops->checkpoint ? log->ops->checkpoint(log, dir, first, arg, err, err_len)
                                : first(arg);
}

void bf_log_dead_letter(struct bf_log *log, struct bf_bytes key, struct bf_bytes body,
                        struct bf_bytes reason, struct bf_bytes ce_headers)
{
    log->ops->dead_letter(log, key, body, reason, ce_headers);
}

void bf_log_token_event(struct bf_log *log, struct bf_bytes key, struct bf_bytes body)
{
    if (log->ops->token_event)
        log->ops->token_event(log, key, body);
}
