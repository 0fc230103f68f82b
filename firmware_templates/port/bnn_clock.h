/* The clock driver's interface: one bnn_clock_*.c is linked. */
#ifndef BNN_CLOCK_H
#define BNN_CLOCK_H

#include <stdint.h>

/*
 * Bring the clock up.  Every wait is bounded: a clock that will not lock leaves
 * the chip on its reset clock.  Returns the clock that the UART divides, in Hz.
 */
uint32_t bnn_clock_start(void);

/* The CPU clock in Hz; 0 where no clock tree exists (emulators). */
uint32_t bnn_clock_hz(void);

#endif
