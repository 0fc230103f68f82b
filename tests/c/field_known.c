/* In the place of bnn_field.c: seeds that a test can foretell, from FIELD_FIRST on. */
#include "bnn_field.h"

static uint64_t next;

void bnn_field_init(void)
{
    next = FIELD_FIRST;
}

bool bnn_field_take(uint32_t count, uint64_t *first)
{
    *first = next;
    next += count;
    return true;
}

uint64_t bnn_field_seed(uint64_t counter)
{
    return counter;
}
