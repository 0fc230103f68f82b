/*
 * Field mode: seeds are the firmware's own, from a key and a counter that
 * outlasts a loss of power.  docs/FIELD.md says what for, and what it is not.
 */
#ifndef BNN_FIELD_H
#define BNN_FIELD_H

#include <stdbool.h>
#include <stdint.h>

#include "bnn_siphash.h"

/*
 * Values of the counter that one mark in flash sets aside, and the most that a
 * loss of power skips.  Skipping costs nothing, marks are few.
 */
#ifndef BNN_FIELD_BLOCK
#define BNN_FIELD_BLOCK 65536u
#endif

/* The board's secret, from the export; in flash, like all of the firmware. */
extern const uint8_t bnn_field_key[BNN_SIPHASH_KEY_BYTES];

/* Forget what is known of the counter: the marks are looked for when it is first needed. */
void bnn_field_init(void);

/*
 * Take the next `count` values of the counter, at most BNN_FIELD_BLOCK; *first is
 * set to the first.  No value is ever given twice, whenever power goes: they are
 * set aside in flash before.  False if flash takes no mark, or has no more.
 */
bool bnn_field_take(uint32_t count, uint64_t *first);

/* The seed that belongs to a value of the counter. */
uint64_t bnn_field_seed(uint64_t counter);

#endif
