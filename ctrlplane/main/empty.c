typedef int bf_empty;
