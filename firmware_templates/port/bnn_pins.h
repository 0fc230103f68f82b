/* Between the UART and the outside: one bnn_pins_*.c is linked. */
#ifndef BNN_PINS_H
#define BNN_PINS_H

/* Give the UART its bus clock, and connect it to its pins; RX pulled up. */
void bnn_pins_start(void);

#endif
