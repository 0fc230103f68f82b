/*
 * Frames as docs/SPEC.md describes them, written a second time: whole chunks
 * instead of byte by byte, the CRC bit by bit.  The harnesses judge the firmware
 * by it, and build their requests with it.
 */
#ifndef FUZZ_WIRE_H
#define FUZZ_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_HEADER 6u
#define WIRE_OVERHEAD 10u

typedef struct wire_frame {
    uint8_t version;
    uint8_t type;
    uint16_t sequence;
    uint16_t length;
    const uint8_t *payload;
} wire_frame_t;

/*
 * Undo the coding of the bytes between two zeros.  Returns the size of the body
 * in `body`, which must hold `size` bytes, or 0 if this is no COBS.
 */
size_t wire_decode(const uint8_t *coded, size_t size, uint8_t *body);

/* Whether a decoded body is a sound frame; then `frame` points into it. */
bool wire_parse(const uint8_t *body, size_t size, wire_frame_t *frame);

/* Fix length and CRC of a body (header, payload, 4 bytes of CRC); size >= WIRE_OVERHEAD. */
void wire_seal(uint8_t *body, size_t size);

/* Code a body between two zeros: at most size + size / 254 + 3 bytes. */
size_t wire_encode(const uint8_t *body, size_t size, uint8_t *wire);

#endif
