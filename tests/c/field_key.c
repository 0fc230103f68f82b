/* The key of the tests: 00 01 .. 0f, as in the paper's test vector. */
#include "bnn_field.h"

const uint8_t bnn_field_key[BNN_SIPHASH_KEY_BYTES] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                      8, 9, 10, 11, 12, 13, 14, 15};
