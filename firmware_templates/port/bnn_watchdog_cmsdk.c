/*
 * The APB watchdog of Arm's Cortex-M System Design Kit (DDI 0479, section 4.5).
 *
 * Unfed for the first time it interrupts, which in Arm's images is the NMI: the
 * fault handler tells where the core hangs.  As long again, and it resets.
 */
#include "bnn_small.h" /* before any code */

#include "bnn_watchdog.h"

#include "bnn_board.h"
#include "bnn_reg.h"

#define WDOG_LOAD BNN_REG(BNN_BOARD_WATCHDOG_ADDRESS + 0x000u)
#define WDOG_CONTROL BNN_REG(BNN_BOARD_WATCHDOG_ADDRESS + 0x008u)
#define WDOG_INTCLR BNN_REG(BNN_BOARD_WATCHDOG_ADDRESS + 0x00cu)
#define WDOG_LOCK BNN_REG(BNN_BOARD_WATCHDOG_ADDRESS + 0xc00u)

#define CONTROL_INTEN (1u << 0) /* the counter's enable too */
#define CONTROL_RESEN (1u << 1)
#define UNLOCK 0x1acce551u
#define LOCK 0u

#define TICKS_PER_MS (BNN_BOARD_WATCHDOG_HZ / 1000u)
#if BNN_BOARD_WATCHDOG_MS < 1 || BNN_BOARD_WATCHDOG_MS * TICKS_PER_MS > 0xffffffffu
#error "BNN_BOARD_WATCHDOG_MS is nothing that the watchdog's 32 bits can count"
#endif

void bnn_watchdog_start(void)
{
    WDOG_LOCK = UNLOCK;
    WDOG_LOAD = BNN_BOARD_WATCHDOG_MS * TICKS_PER_MS;
    WDOG_INTCLR = 1u; /* a bootloader's may be on and pending */
    WDOG_CONTROL = CONTROL_INTEN | CONTROL_RESEN;
    WDOG_LOCK = LOCK;
}

void bnn_watchdog_feed(void)
{
    /* Any value loads the counter again. */
    WDOG_LOCK = UNLOCK;
    WDOG_INTCLR = 1u;
    WDOG_LOCK = LOCK;
}
