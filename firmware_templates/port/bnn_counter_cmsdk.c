/*
 * The core's cycle counter, or else the APB timer of Arm's Cortex-M System
 * Design Kit (DDI 0479, section 4.2), which counts down.
 */
#include "bnn_board.h"
#include "bnn_counter.h"
#include "bnn_dwt.h"
#include "bnn_port.h"
#include "bnn_reg.h"

#define TIMER_CTRL BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x0u)
#define TIMER_VALUE BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x4u)
#define TIMER_RELOAD BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x8u)
#define CTRL_ENABLE (1u << 0)

static uint8_t kind = BNN_COUNTER_NONE;

uint8_t bnn_counter_start(void)
{
    if (bnn_dwt_start()) {
        kind = BNN_COUNTER_DWT;
    } else {
        TIMER_RELOAD = 0xffffffffu;
        TIMER_VALUE = 0xffffffffu;
        TIMER_CTRL = CTRL_ENABLE;
        if (bnn_advances(&TIMER_VALUE)) {
            kind = BNN_COUNTER_TIMER;
        }
    }
    return kind;
}

__attribute__((noinline)) uint32_t bnn_port_ticks(void)
{
    if (kind == BNN_COUNTER_TIMER) {
        return ~TIMER_VALUE;
    }
    return kind == BNN_COUNTER_DWT ? BNN_DWT_CYCCNT : 0u;
}
