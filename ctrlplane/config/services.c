/* Reload: a new configuration is loaded and checked whole, then swapped; the old one stays
 * allocated. */
#include "config/services.h"

#include <pthread.h>
#include <stdio.h>

#include "belfry/base/log.h"
#include "belfry/conf/conf_load.h"
#include "channels/table/channels.h"
#include "crypto/certificates.h"
#include "crypto/user_token.h"
#include "fanout/core.h"
#include "log/log.h"
#include "stats/metrics.h"

/* Whatever a server would find unusable later, when nobody waits for an answer any more. */
static int check_keys(const struct bf_conf *conf, char *err, size_t err_len)
{
    struct bf_token_keys *keys = NULL;
    int rc = bf_certificates_check(conf, err, err_len);
    if (rc == 0)
        rc = bf_token_keys_create(conf, &keys, err, err_len);
    bf_token_keys_destroy(keys);
    return rc;
}

int bf_services_reload(struct bf_services *services, char *err, unsigned long err_len)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* one reload at a time */
    struct bf_conf *fresh;
    pthread_mutex_lock(&lock);
    int rc = bf_conf_load(services->config_path, &fresh, err, err_len);
    if (rc == 0 && (rc = check_keys(fresh, err, err_len)) != 0)
        bf_conf_free(fresh);
    if (rc == 0 && (rc = bf_log_check(fresh, err, err_len)) != 0)
        bf_conf_free(fresh);
    if (rc == 0 && (rc = bf_channels_reload(services->channels, fresh, err, err_len)) != 0)
        bf_conf_free(fresh);
    if (rc == 0) {
        bf_log_configure(fresh->log_level, fresh->log_format);
        atomic_store(&services->conf, fresh);
        rc = bf_core_reload(services->core, fresh);
        bf_count(BF_CM_M_reloads, 1);
        BF_INFO("ctrlplane", "configuration reloaded from %s", services->config_path);
    }
    pthread_mutex_unlock(&lock);
    return rc;
}
