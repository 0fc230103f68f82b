/*
 * STM32: the core's cycle counter, or else TIM2 where that has 32 bits.
 *
 * TIM2: RM0390 section 17.4; the registers are the same in all families.
 */
#include "bnn_board.h"
#include "bnn_counter.h"
#include "bnn_dwt.h"
#include "bnn_port.h"
#include "bnn_reg.h"

#define TIM2_CR1 BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x00u)
#define TIM2_EGR BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x14u)
#define TIM2_CNT BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x24u)
#define TIM2_PSC BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x28u)
#define TIM2_ARR BNN_REG(BNN_BOARD_TIMER_ADDRESS + 0x2cu)
#define TIM_CEN (1u << 0)
#define TIM_UG (1u << 0)

static const volatile uint32_t no_count = 0u;
static const volatile uint32_t *counter = &no_count;

uint8_t bnn_counter_start(void)
{
    if (bnn_dwt_start()) {
        counter = &BNN_DWT_CYCCNT;
        return BNN_COUNTER_DWT;
    }
    BNN_REG(BNN_BOARD_TIMER_ENABLE_ADDRESS) |= 1u << BNN_BOARD_TIMER_ENABLE_BIT;
    /* The clock takes two cycles to arrive: errata sheet ES0298. */
    (void)BNN_REG(BNN_BOARD_TIMER_ENABLE_ADDRESS);
    TIM2_PSC = 0u;
    TIM2_ARR = 0xffffffffu;
    TIM2_EGR = TIM_UG; /* loads the prescaler now: 17.4.6 */
    TIM2_CR1 = TIM_CEN;
    if (bnn_advances(&TIM2_CNT)) {
        counter = &TIM2_CNT;
        return BNN_COUNTER_TIMER;
    }
    return BNN_COUNTER_NONE;
}

__attribute__((noinline)) uint32_t bnn_port_ticks(void)
{
    return *counter;
}
