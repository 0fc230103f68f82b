/*
 * The clock as reset leaves it: for boards that were never tried at full speed,
 * and for emulated ones, which have no clock.
 */
#include "bnn_board.h"
#include "bnn_clock.h"
#include "bnn_reg.h"

uint32_t bnn_clock_start(void)
{
    return BNN_BOARD_UART_RESET_HZ;
}

uint32_t bnn_clock_hz(void)
{
#ifdef BNN_BOARD_CLOCK_PROBE_ADDRESS
    /* A chip that runs has an oscillator on; where none is, there is no clock tree. */
    if ((BNN_REG(BNN_BOARD_CLOCK_PROBE_ADDRESS) & BNN_BOARD_CLOCK_PROBE_MASK) != 0u) {
        return BNN_BOARD_RESET_HZ;
    }
#endif
    return 0u;
}
