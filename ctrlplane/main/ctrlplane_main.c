#include "belfry/plane.h"
#include <stddef.h>

int main(void)
{
    return 1;
}
