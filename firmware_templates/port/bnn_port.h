/*
 * What the firmware asks of a chip: a byte stream, a counter, the time to sleep.
 *
 * bnn_port_cortexm.c implements this for all Cortex-M chips, on four small
 * drivers of the chip's family, together with the start-up code of the core
 * (bnn_startup_cortexm.c).  Everything above it is plain C99 that also runs on a
 * host.
 *
 * All functions are called from the main thread only; the receive interrupt is
 * the port's own affair.
 */
#ifndef BNN_PORT_H
#define BNN_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BNN_COUNTER_NONE = 0,  /* nothing counts: bnn_port_ticks() is always 0 */
    BNN_COUNTER_DWT = 1,   /* CPU cycles (Cortex-M DWT CYCCNT) */
    BNN_COUNTER_TIMER = 2  /* ticks of a timer; instructions under qemu -icount */
};

/* The board's short name, as in boards/NAME.toml. */
extern const char bnn_port_board[];

/*
 * Bring up the clock, the UART and the counter.  Every wait inside is bounded:
 * a clock that will not lock leaves the chip on its reset clock, and
 * bnn_port_clock_hz() says so.
 */
void bnn_port_init(void);

/* The next received byte, 0..255, or -1 when none has come. */
int bnn_port_read(void);

/*
 * Sleep until a byte may have come.  It can return early and without one: call
 * it in a loop around bnn_port_read().
 */
void bnn_port_wait(void);

/*
 * Tell that the main loop goes on: nothing, unless the export asked for a
 * watchdog.  It waits no longer than a whole inference takes, so it is told
 * between inferences and never within one.
 */
#ifdef BNN_PORT_WATCHDOG
void bnn_port_alive(void);
#else
static inline void bnn_port_alive(void)
{
}
#endif

/*
 * Send bytes; returns when the last one was handed to the UART.  Polled, so it
 * works with interrupts off and from bnn_app_fault().
 */
void bnn_port_write(const uint8_t *data, size_t size);

/*
 * What the UART makes of a baud, exactly: the nearest that it can, which may be
 * far off; 0 if it is out of reach.  Of 0: the one in use.
 */
uint32_t bnn_port_baud(uint32_t baud);

/*
 * Go over to a baud that bnn_port_baud() made something of, as soon as what was
 * written has left; 0 is the board's own, which it starts with.
 */
void bnn_port_set_baud(uint32_t baud);

/*
 * Received bytes without a stop bit, wrapping: noise, or another baud at the
 * other end.  0 for ever where the UART does not tell.
 */
uint32_t bnn_port_garbled(void);

/*
 * Bytes taken by the receiver so far, wrapping.  If it changed during an
 * inference, the receive interrupt ran inside the measured span and the tick
 * count is polluted.
 */
uint32_t bnn_port_received(void);

/* Bytes the receive buffer can hold while the firmware computes. */
uint32_t bnn_port_capacity(void);

/* True if received bytes were lost since this was last asked. */
bool bnn_port_overrun(void);

/* The free-running counter, wrapping at 2^32; see bnn_port_counter(). */
uint32_t bnn_port_ticks(void);

/* What bnn_port_ticks() counts: one of BNN_COUNTER_*. Decided at run time. */
uint8_t bnn_port_counter(void);

/*
 * The CPU clock in Hz, which is what the counter counts for BNN_COUNTER_DWT; 0
 * where no clock tree exists (emulators), so that nobody turns emulated
 * instructions into milliseconds.
 */
uint32_t bnn_port_clock_hz(void);

/* Bytes of the painted stack never touched since reset. */
uint32_t bnn_port_stack_free(void);

/* Why the core started, as far as the chip tells. */
enum {
    BNN_RESET_UNKNOWN = 0,
    BNN_RESET_POWER = 1, /* power came, or dipped (brown-out) */
    BNN_RESET_PIN = 2,
    BNN_RESET_SOFTWARE = 3,
    BNN_RESET_WATCHDOG = 4
};
uint8_t bnn_port_reset_cause(void);

/*
 * The bytes of the firmware in flash, and the CRC-32 that they had when it was
 * built; false where the build did not record one.
 */
bool bnn_port_image(const uint8_t **bytes, size_t *size, uint32_t *crc);

/*
 * Memory that keeps its contents over a reset, though not over a loss of power:
 * whoever reads it checks what is there.
 */
#define BNN_PORT_KEPT_WORDS 16u
extern uint32_t bnn_port_kept[BNN_PORT_KEPT_WORDS];

/*
 * Provided by the application, called by the fault handler with interrupts off
 * and on a fresh stack: report it with bnn_port_write() and return; the CPU is
 * then parked until reset.
 *
 * frame: r0, r1, r2, r3, r12, lr, pc, xpsr at the fault, all zero if the stack
 * pointer was unusable.  The others are SCB registers CFSR, HFSR, MMFAR, BFAR
 * (ARMv7-M architecture reference manual, B3.2.15 to B3.2.18).
 */
void bnn_app_fault(const uint32_t frame[8], uint32_t cfsr, uint32_t hfsr, uint32_t mmfar,
                   uint32_t bfar);

#endif
