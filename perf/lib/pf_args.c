/* Options of a benchmark: see pf_args.h. */
#include "pf_args.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pf_report.h"

static void help(const struct pf_option *options)
{
    for (const struct pf_option *o = options; o->name; o++) {
        char value[64] = "";
        if (o->number)
            snprintf(value, sizeof(value), " N (%" PRIu64 ")", *o->number);
        else if (o->text)
            snprintf(value, sizeof(value), " TEXT%s%s%s", *o->text ? " (" : "",
                     *o->text ? *o->text : "", *o->text ? ")" : "");
        printf("  %s%-*s %s\n", o->name, (int)(28 - strlen(o->name)), value, o->help);
    }
    exit(0);
}

static const struct pf_option *find(const struct pf_option *options, const char *name)
{
    for (const struct pf_option *o = options; o->name; o++)
        if (strcmp(o->name, name) == 0)
            return o;
    pf_die("unknown option %s; --help names them", name);
}

void pf_args(int argc, char **argv, const struct pf_option *options)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0)
            help(options);
        const struct pf_option *o = find(options, argv[i]);
        if (o->flag) {
            *o->flag = 1;
            continue;
        }
        if (i + 1 == argc)
            pf_die("%s wants a value", argv[i]);
        const char *value = argv[++i];
        char *end = NULL;
        if (o->text)
            *o->text = value;
        else if (o->number)
            *o->number = strtoull(value, &end, 10);
        if (o->number && (end == value || *end != '\0'))
            pf_die("%s wants a number, not %s", o->name, value);
    }
}
