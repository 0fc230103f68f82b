/* A port that feeds an input and keeps what is written; see fuzz_port.c. */
#ifndef FUZZ_PORT_H
#define FUZZ_PORT_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bnn_port.h"

#define FUZZ_SENT_MOST 262144u

/* Start on an input, as after a reset: RAM and clock apart, all is as it was at power-up. */
void fuzz_port_start(const uint8_t *data, size_t size, bool overrun, bool corrupt, bool pauses,
                     uint32_t clock_hz);

/* More bytes after those of the input; both must stay where they are. */
void fuzz_port_more(const uint8_t *data, size_t size);

/* Bytes that the firmware has taken so far, of the input or of what came after it. */
size_t fuzz_port_taken(void);
bool fuzz_port_empty(void);

/* What was written since this was last called. */
const uint8_t *fuzz_port_sent(size_t *size);

/* The baud that the firmware went over to, 0 for the board's own. */
uint32_t fuzz_port_baud(void);

/* Where the core goes when it crashes or its power is lost: fake_model.c calls it for exit(). */
extern jmp_buf fuzz_reset;
void fuzz_exit(int status);

#endif
