/*
 * The counter driver's interface: one bnn_counter_*.c is linked, and defines
 * bnn_port_ticks() too.  That is one call a read and stays out of line, so that
 * an emulator can see when it is read.
 */
#ifndef BNN_COUNTER_H
#define BNN_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

#define BNN_COUNTER_POLLS 64u

/* Start the best counter that works; returns its kind, one of BNN_COUNTER_*. */
uint8_t bnn_counter_start(void);

/* Whether a register changes. */
static inline bool bnn_advances(const volatile uint32_t *reg)
{
    const uint32_t first = *reg;
    for (uint32_t poll = 0u; poll < BNN_COUNTER_POLLS; poll++) {
        if (*reg != first) {
            return true;
        }
    }
    return false;
}

#endif
