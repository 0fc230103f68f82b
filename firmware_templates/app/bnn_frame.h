/*
 * Frames of the bnnmcu serial protocol: COBS, a fixed header, a CRC-32.
 *
 *   0x00  COBS( version type sequence:2 length:2 payload crc32:4 )  0x00
 *
 * All integers are little-endian.  The CRC is the one of zlib, over everything
 * before it.  docs/SPEC.md has the whole protocol and golden frames.
 */
#ifndef BNN_FRAME_H
#define BNN_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BNN_FRAME_VERSION 1u
#define BNN_FRAME_HEADER 6u
#define BNN_FRAME_OVERHEAD 10u /* header and CRC */

/* Bytes on the wire of a body of n bytes, both delimiters included, at worst. */
#define BNN_FRAME_ENCODED(n) ((n) + (n) / 254u + 1u + 2u)

enum {
    BNN_FRAME_MORE = 0,  /* no frame has ended yet */
    BNN_FRAME_READY = 1, /* a sound frame has ended */
    BNN_FRAME_BAD = -1   /* something ended that is not a frame: drop it */
};

/* A received frame; the payload lies in the buffer of its decoder. */
typedef struct bnn_frame {
    uint8_t version;
    uint8_t type;
    uint16_t sequence;
    uint16_t length;
    uint32_t crc;
    const uint8_t *payload;
} bnn_frame_t;

/*
 * Decodes the COBS coding byte by byte, so that one buffer of the decoded size
 * is all the memory a receiver needs.
 */
typedef struct bnn_decoder {
    uint8_t *body;
    size_t capacity;
    size_t size;
    uint8_t left;  /* plain bytes still to come in this COBS block */
    bool zero;     /* the block before ends in a zero that COBS took out */
    bool started;  /* some byte has come since the last delimiter */
    bool spoiled;  /* too long: swallow everything up to the delimiter */
} bnn_decoder_t;

/* Takes `size` bytes towards the wire; bnn_port_write is one. */
typedef void (*bnn_sink_t)(const uint8_t *data, size_t size);

uint32_t bnn_crc32(const uint8_t *data, size_t size);

void bnn_put_u16(uint8_t *at, uint16_t value);
void bnn_put_u32(uint8_t *at, uint32_t value);
void bnn_put_u64(uint8_t *at, uint64_t value);
uint16_t bnn_get_u16(const uint8_t *at);
uint32_t bnn_get_u32(const uint8_t *at);
uint64_t bnn_get_u64(const uint8_t *at);

void bnn_decoder_init(bnn_decoder_t *decoder, uint8_t *body, size_t capacity);

/*
 * Take one byte off the wire.  Returns BNN_FRAME_READY when it ends a frame
 * whose length and CRC are right; `frame` is then filled, and stays valid
 * until the next byte is pushed.  Any other version is READY too: the caller
 * answers it.  Two delimiters in a row are no frame and no error.
 */
int bnn_decoder_push(bnn_decoder_t *decoder, uint8_t byte, bnn_frame_t *frame);

/*
 * Write header and CRC around a payload of `length` bytes that already lies at
 * body + BNN_FRAME_HEADER.  Returns the size of the body.
 */
size_t bnn_frame_seal(uint8_t *body, uint8_t type, uint16_t sequence, uint16_t length);

/* Send a sealed body, coded on the way, so that no second buffer is needed. */
void bnn_frame_send(const uint8_t *body, size_t size, bnn_sink_t sink);

#endif
