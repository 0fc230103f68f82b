/* The planes that a count begins with; not part of the interface. */
#ifndef BNN_LOW_H
#define BNN_LOW_H

#include <stdint.h>

/* The four low planes of a count while rows are added to it. */
typedef struct bnn_low {
    uint32_t ones, twos, fours, eights;
} bnn_low_t;

#endif
