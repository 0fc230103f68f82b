/*
 * How the firmware is: whether its flash is what was built, and how an earlier
 * run ended.  docs/SPEC.md, sections 4, 7 and 9.
 */
#ifndef BNN_HEALTH_H
#define BNN_HEALTH_H

#include <stdint.h>

#include "bnn_protocol.h"

/* Look at flash and at what the last reset left behind; check is for scratch. */
void bnn_health_init(uint8_t check[BNN_CHECK_REPLY]);

/* Bits of BNN_STATE_*. */
uint8_t bnn_health_state(void);

/*
 * Compare the firmware in flash with what was built, and write what CHECK
 * replies.  About 13 instructions a byte: 12 ms for 150 KB at 180 MHz.
 */
void bnn_health_check(uint8_t check[BNN_CHECK_REPLY]);

/* Keep the payload of a FAULT frame over the reset that must follow. */
void bnn_health_keep_fault(const uint8_t fault[BNN_FAULT_BYTES]);

/* Give it back, and forget it.  Only while the state has BNN_STATE_FAULTED. */
void bnn_health_tell_fault(uint8_t fault[BNN_FAULT_BYTES]);

#endif
