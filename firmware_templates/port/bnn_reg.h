/* Registers at fixed addresses, and bounded waits for them. */
#ifndef BNN_REG_H
#define BNN_REG_H

#include <stdbool.h>
#include <stdint.h>

#define BNN_REG(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Turns of a polling loop: at least 3 cycles each, so more than 3 ms at 180 MHz. */
#define BNN_REG_POLLS 200000u

/* True once the bits under the mask have the value; false if they never do. */
static inline bool bnn_wait_for(const volatile uint32_t *reg, uint32_t mask, uint32_t value)
{
    for (uint32_t poll = 0u; poll < BNN_REG_POLLS; poll++) {
        if ((*reg & mask) == value) {
            return true;
        }
    }
    return false;
}

/* Replaces one of a register's fields that are all `bits` wide. */
static inline void bnn_set_field(volatile uint32_t *reg, uint32_t index, uint32_t bits,
                                 uint32_t value)
{
    const uint32_t shift = index * bits;
    *reg = (*reg & ~(((1u << bits) - 1u) << shift)) | (value << shift);
}

#endif
