/*
 * The independent watchdog (IWDG; IWDG1 of an H7) of all STM32: RM0390 section
 * 20, and the same section of the other families' manuals.  It counts its own
 * oscillator (LSI), which is up to half as fast again as it should be in the
 * older families, and no option byte has to be changed for it.
 *
 * Written from the manuals; it never ran on a chip.
 */
#include "bnn_small.h" /* before any code */

#include "bnn_watchdog.h"

#include "bnn_board.h"
#include "bnn_clock.h"
#include "bnn_reg.h"

#define IWDG_KR BNN_REG(BNN_BOARD_WATCHDOG_ADDRESS + 0x0u)
#define IWDG_PR BNN_REG(BNN_BOARD_WATCHDOG_ADDRESS + 0x4u)
#define IWDG_RLR BNN_REG(BNN_BOARD_WATCHDOG_ADDRESS + 0x8u)
#define IWDG_SR BNN_REG(BNN_BOARD_WATCHDOG_ADDRESS + 0xcu)

#define KEY_FEED 0xaaaau
#define KEY_UNLOCK 0x5555u
#define KEY_START 0xccccu
#define PRESCALER_256 6u
#define SR_BUSY ((1u << 0) | (1u << 1)) /* PVU, RVU: the old value still counts */

/* MS / 1000 * HZ / 256, in an order that 32 bits can hold. */
#define RELOAD (BNN_BOARD_WATCHDOG_MS * (BNN_BOARD_WATCHDOG_HZ / 32u) / 8000u)
#if BNN_BOARD_WATCHDOG_MS > 100000 || RELOAD < 1 || RELOAD > 0xfff
#error "BNN_BOARD_WATCHDOG_MS is nothing that the IWDG's 12 bits can count"
#endif

static void await(void)
{
    /*
     * Some periods of the LSI, at most 48 ms if they are divided by 256; at 6 to 25
     * cycles a turn this gives up after 50 to 200 ms.  Before the new values count,
     * an IWDG waits 270 ms at the least.  Without a clock tree (emulators) there is
     * nothing to wait for.
     */
    const uint32_t polls = bnn_clock_hz() / 128u;

    for (uint32_t poll = 0u; poll < polls && (IWDG_SR & SR_BUSY) != 0u; poll++) {
    }
}

void bnn_watchdog_start(void)
{
    /* On first: that switches the LSI on, without which no value is taken over. */
    IWDG_KR = KEY_START;
    await();
    IWDG_KR = KEY_FEED;
    IWDG_KR = KEY_UNLOCK;
    IWDG_PR = PRESCALER_256;
    IWDG_RLR = RELOAD;
    await();
    IWDG_KR = KEY_FEED;
}

void bnn_watchdog_feed(void)
{
    IWDG_KR = KEY_FEED;
}
