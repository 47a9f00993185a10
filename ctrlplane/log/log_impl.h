/* Private to log/: the functions that an engine provides. Each engine embeds struct bf_log first.
 */
#pragma once

#include "log/log.h"

struct bf_log_ops {
    void (*close)(struct bf_log *log);
    int (*append)(struct bf_log *log, const struct bf_log_entry *entry, bf_log_done_fn done,
                  void *arg);
    int (*get_idem)(struct bf_log *log, struct bf_bytes key, uint64_t now_ms,
                    int (*use)(void *arg, const struct bf_idem_row *row), void *arg);
    int (*poll)(struct bf_log *log, struct bf_log_record *records, int max, uint32_t timeout_ms);
    void (*free_records)(struct bf_log *log, struct bf_log_record *records, int count);
    void (*keep)(struct bf_log *log); /* NULL: no group could take partitions away */
    void (*pause)(struct bf_log *log, uint32_t partition, bool paused);
    int (*commit)(struct bf_log *log, uint32_t partition, uint32_t assignment, int64_t offset);
    void (*health)(struct bf_log *log, struct bf_log_health *ret);
    int (*erase)(struct bf_log *log, bf_log_match_fn match, void *arg,
                 const struct bf_pace *pace); /* NULL: not on this machine */
    void (*stop_erase)(struct bf_log *log);   /* NULL as |erase| */
    int (*checkpoint)(struct bf_log *log, const char *dir, int (*first)(void *arg), void *arg,
                      char *err, size_t err_len); /* NULL: not on this machine */
    void (*dead_letter)(struct bf_log *log, struct bf_bytes key, struct bf_bytes body,
                        struct bf_bytes reason, struct bf_bytes ce_headers);
    void (*token_event)(struct bf_log *log, struct bf_bytes key,
                        struct bf_bytes body); /* NULL: the engine has no such topic */
};

struct bf_log {
    const struct bf_log_ops *ops;
};

int bf_log_embedded_open(const struct bf_conf *conf, struct bf_store *store,
                         const struct bf_log_hooks *hooks, struct bf_log **ret, char *err,
                         size_t err_len);
int bf_log_kafka_open(const struct bf_conf *conf, struct bf_store *store,
                      const struct bf_log_hooks *hooks, struct bf_log **ret, char *err,
                      size_t err_len);
int bf_log_kafka_check(const struct bf_conf *conf, char *err, size_t err_len);
