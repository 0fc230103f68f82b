/* TIMER0 of the nRF51, 32 bits at 16 MHz: nRF51 Series Reference Manual section 18. */
#include "bnn_board.h"
#include "bnn_counter.h"
#include "bnn_port.h"
#include "bnn_reg.h"

#define TASKS_START BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x000u)
#define TASKS_CAPTURE0 BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x040u)
#define MODE BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x504u)
#define BITMODE BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x508u)
#define PRESCALER BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x510u)
#define CC0 BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x540u)
#define MODE_TIMER 0u
#define BITMODE_32 3u

__attribute__((noinline)) uint32_t bnn_port_ticks(void)
{
    TASKS_CAPTURE0 = 1u;
    return CC0;
}

uint8_t bnn_counter_start(void)
{
    MODE = MODE_TIMER;
    BITMODE = BITMODE_32;
    PRESCALER = 0u;
    TASKS_START = 1u;
    const uint32_t first = bnn_port_ticks();
    for (uint32_t poll = 0u; poll < BNN_COUNTER_POLLS; poll++) {
        if (bnn_port_ticks() != first) {
            return BNN_COUNTER_TIMER;
        }
    }
    return BNN_COUNTER_NONE;
}
