/*
 * The core's cycle counter, or else the system counter of Arm's SSE-300
 * subsystem (technical reference manual 101773, memory-mapped counter).
 */
#include "bnn_board.h"
#include "bnn_counter.h"
#include "bnn_dwt.h"
#include "bnn_port.h"
#include "bnn_reg.h"

#define CNTCR BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x0u)
#define CNTCV_LOW BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x8u)
#define CNTCR_EN (1u << 0)

static uint8_t kind = BNN_COUNTER_NONE;

uint8_t bnn_counter_start(void)
{
    if (bnn_dwt_start()) {
        kind = BNN_COUNTER_DWT;
    } else {
        CNTCR |= CNTCR_EN;
        if (bnn_advances(&CNTCV_LOW)) {
            kind = BNN_COUNTER_TIMER;
        }
    }
    return kind;
}

__attribute__((noinline)) uint32_t bnn_port_ticks(void)
{
    if (kind == BNN_COUNTER_TIMER) {
        return CNTCV_LOW;
    }
    return kind == BNN_COUNTER_DWT ? BNN_DWT_CYCCNT : 0u;
}
