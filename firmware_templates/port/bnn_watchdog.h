/*
 * The chip's watchdog: it resets a core that no longer feeds it.  Compiled in
 * only where an export asked for it (BNN_PORT_WATCHDOG).
 *
 * BNN_BOARD_WATCHDOG_MS is how long it waits for being fed, by its own clock,
 * which in many chips is an inexact oscillator.
 */
#ifndef BNN_WATCHDOG_H
#define BNN_WATCHDOG_H

#include "bnn_board.h"

/* CPU cycles after which the core wakes to feed it: all that SysTick's 24 bits count. */
#define BNN_WATCHDOG_SLEEP 0xffffffu
/* A full clock is faster than that of reset, so it wakes sooner. */
#if BNN_BOARD_WATCHDOG_MS * (BNN_BOARD_RESET_HZ / 1000u) < 2u * BNN_WATCHDOG_SLEEP
#error "BNN_BOARD_WATCHDOG_MS is less than twice as long as the core sleeps"
#endif

/* Start it, fed; nothing but a reset stops it again. */
void bnn_watchdog_start(void);

/* Start its time anew. */
void bnn_watchdog_feed(void);

#endif
