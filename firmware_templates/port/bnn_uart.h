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

/*
 * 8 data bits, no parity, 1 stop bit, from a clock of hz; both directions on,
 * and its receive interrupt.  bnn_pins_start() was called before.
 */
void bnn_uart_start(uint32_t hz);

/* BNN_UART_* bits: what waits.  Nothing is taken. */
uint32_t bnn_uart_status(void);

/*
 * After a status other than 0: the byte, and what the status said is over.
 * Without BNN_UART_BYTE, the value means nothing.
 */
uint8_t bnn_uart_take(void);

/* Whether bnn_uart_send() would find room; polled, so it works in a fault handler. */
bool bnn_uart_can_send(void);
void bnn_uart_send(uint8_t byte);

#endif
