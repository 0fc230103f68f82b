/*
 * nRF52: the crystal in place of the RC oscillator.  Both give the CPU 64 MHz;
 * the crystal makes the baud rate exact, which the RC oscillator's tolerance
 * may spoil.
 *
 * Source: nRF52840 Product Specification, chapter CLOCK (Clock control).
 */
#include "bnn_clock.h"

#include "bnn_board.h"
#include "bnn_reg.h"

#define CLOCK_TASKS_HFCLKSTART BNN_REG(0x40000000u)
#define CLOCK_EVENTS_HFCLKSTARTED BNN_REG(0x40000100u)

uint32_t bnn_clock_start(void)
{
    CLOCK_EVENTS_HFCLKSTARTED = 0u;
    CLOCK_TASKS_HFCLKSTART = 1u;
    /* Without a crystal the RC oscillator goes on: slower to agree, but not wrong. */
    (void)bnn_wait_for(&CLOCK_EVENTS_HFCLKSTARTED, 1u, 1u);
    return BNN_BOARD_UART_HZ;
}

uint32_t bnn_clock_hz(void)
{
    return BNN_BOARD_CLOCK_HZ;
}
