/*
 * Marks that outlast a loss of power: bits of flash that the firmware sets while
 * it runs, one after the other, and never takes back.  One bnn_persist_*.c is
 * linked, and only where an export asked for field mode (docs/FIELD.md).
 *
 * Power may go at any moment: a mark that was just being set may be found set or
 * not, and once so and once so.
 */
#ifndef BNN_PERSIST_H
#define BNN_PERSIST_H

#include <stdbool.h>
#include <stdint.h>

/* How many there are. */
uint32_t bnn_persist_marks(void);

/* The number behind the last one that is set; 0 if none is. */
uint32_t bnn_persist_end(void);

/* Set a mark; true once it reads back as set. */
bool bnn_persist_set(uint32_t mark);

#endif
