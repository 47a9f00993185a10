/* Options of a benchmark: --name value, from one table. One thread. */
#pragma once

#include <stdint.h>

struct pf_option {
    const char *name;  /* "--connections" */
    uint64_t *number;  /* set by a number, or */
    const char **text; /* by a text, or */
    int *flag;         /* set to 1, taking no value */
    const char *help;
};

/* Reads the command line. --help prints the table and ends the program; an unknown option ends it.
 * The table ends with a row whose name is NULL. */
void pf_args(int argc, char **argv, const struct pf_option *options);
