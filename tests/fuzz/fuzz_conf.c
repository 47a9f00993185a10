/*
 * Configuration files of any bytes. An accepted one is within the table's ranges; a refused one
 * comes with a message. Inputs that name files are let pass without loading: the fuzzer shall not
 * read them.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/conf/conf_load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_ranges(const struct bf_conf *conf)
{
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT; i++) {
        const struct bf_conf_option *o = &bf_conf_options()[i];
        const void *field = bf_conf_field(conf, o);
        uint64_t value = 0;
        if (o->type == BF_CONF_TYPE_U32)
            value = *(const uint32_t *)field;
        else if (o->type == BF_CONF_TYPE_U64)
            value = *(const uint64_t *)field;
        else if (o->type == BF_CONF_TYPE_BOOL)
            value = *(const bool *)field;
        else
            value = strlen(*(char *const *)field);
        if (value < o->min || value > o->max)
            abort();
    }
    if (conf->jwt_key_count > BF_CONF_JWT_KEYS_MAX ||
        conf->public_topic_count > BF_CONF_TOPIC_RULES_MAX)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[BF_CONF_ERROR_BYTES_MAX] = "";
    struct bf_conf *conf = NULL;
    if (size == 0 || memmem(data, size, "file", 4))
        return 0;
    if (bf_conf_load_text("f.yaml", data, size, &conf, err, sizeof(err)) == 0)
        check_ranges(conf);
    else if (conf || err[0] == '\0')
        abort();
    bf_conf_free(conf);
    return 0;
}
