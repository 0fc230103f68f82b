/*
 * RP2040: its timer, ticked by every cycle of the reference clock.  That is also
 * the CPU's clock here, so that a tick is a cycle.
 *
 * Source: RP2040 Datasheet, chapters Timer and Watchdog (tick generation).
 */
#include "bnn_counter.h"
#include "bnn_port.h"
#include "bnn_reg.h"

#define RESETS_RESET BNN_REG(0x4000c000u)
#define RESETS_DONE BNN_REG(0x4000c008u)
#define RESET_TIMER (1u << 21)
#define WATCHDOG_TICK BNN_REG(0x4005802cu)
#define TICK_ENABLE (1u << 9)
#define TICK_EVERY_CYCLE 1u
#define TIMER_RAW_LOW BNN_REG(0x40054028u)

uint8_t bnn_counter_start(void)
{
    RESETS_RESET &= ~RESET_TIMER;
    (void)bnn_wait_for(&RESETS_DONE, RESET_TIMER, RESET_TIMER);
    WATCHDOG_TICK = TICK_ENABLE | TICK_EVERY_CYCLE;
    return bnn_advances(&TIMER_RAW_LOW) ? BNN_COUNTER_TIMER : BNN_COUNTER_NONE;
}

__attribute__((noinline)) uint32_t bnn_port_ticks(void)
{
    return TIMER_RAW_LOW;
}
