/*
 * The UART driver's interface: one bnn_uart_*.c is linked.
 *
 * The port owns ring and interrupt controller; a driver knows the registers of
 * one kind of UART, and keeps nothing that an interrupt could change.
 */
#ifndef BNN_UART_H
#define BNN_UART_H

#include <stdbool.h>
#include <stdint.h>

enum {
    BNN_UART_BYTE = 1, /* a byte waits */
    BNN_UART_LOST = 2  /* bytes before it were lost */
};

/* hz / baud, rounded to the nearest. */
static inline uint32_t bnn_nearest(uint32_t hz, uint32_t baud)
{
    return (hz + baud / 2u) / baud;
}

/* What the divisor nearest to it makes of it, if that may be so small and so large; or 0. */
static inline uint32_t bnn_divided(uint32_t hz, uint32_t baud, uint32_t least, uint32_t most)
{
    const uint32_t divisor = bnn_nearest(hz, baud);

    return divisor < least || divisor > most ? 0u : bnn_nearest(hz, divisor);
}

/* Beside a byte that was taken: it had no stop bit, as bytes of another baud often have none. */
#define BNN_UART_GARBLED 0x100u

/*
 * The baud nearest to the one asked for that can be made from a clock of hz; 0
 * if it is out of reach.  It may be off by any amount: the caller judges.
 */
uint32_t bnn_uart_baud(uint32_t hz, uint32_t baud);

/*
 * 8 data bits, no parity, 1 stop bit, at a baud that bnn_uart_baud() makes
 * something of, from a clock of hz; both directions on, and its receive
 * interrupt.  bnn_pins_start() was called before.  Called again for another
 * baud, once all was sent; what is being received is lost.
 */
void bnn_uart_start(uint32_t hz, uint32_t baud);

/* BNN_UART_* bits: what waits.  Nothing is taken. */
uint32_t bnn_uart_status(void);

/*
 * After a status other than 0: the byte and perhaps BNN_UART_GARBLED, and what
 * the status said is over.  Without BNN_UART_BYTE, the byte means nothing.
 */
uint32_t bnn_uart_take(void);

/* Whether bnn_uart_send() would find room; polled, so it works in a fault handler. */
bool bnn_uart_can_send(void);
void bnn_uart_send(uint8_t byte);

/* Whether the last bit of what was sent has left the wire. */
bool bnn_uart_sent(void);

#endif
