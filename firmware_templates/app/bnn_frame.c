#include "bnn_small.h" /* before any code */

#include "bnn_frame.h"

#define COBS_LONGEST_RUN 254u

/*
 * Four bits at a time: 64 bytes of table instead of a kilobyte.  A request of
 * a thousand bytes costs some ten thousand instructions, little beside an
 * inference and outside its count.
 */
static const uint32_t crc_table[16] = {
    0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
    0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
    0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
};

uint32_t bnn_crc32(const uint8_t *data, size_t size)
{
    uint32_t crc = 0xFFFFFFFFu;

    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        crc = (crc >> 4) ^ crc_table[crc & 15u];
        crc = (crc >> 4) ^ crc_table[crc & 15u];
    }
    return ~crc;
}

/* Byte by byte: the wire has no alignment and the core may have no unaligned access. */

void bnn_put_u16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value & 0xFFu);
    at[1] = (uint8_t)(value >> 8);
}

void bnn_put_u32(uint8_t *at, uint32_t value)
{
    bnn_put_u16(at, (uint16_t)(value & 0xFFFFu));
    bnn_put_u16(at + 2, (uint16_t)(value >> 16));
}

void bnn_put_u64(uint8_t *at, uint64_t value)
{
    bnn_put_u32(at, (uint32_t)(value & 0xFFFFFFFFu));
    bnn_put_u32(at + 4, (uint32_t)(value >> 32));
}

uint16_t bnn_get_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | ((unsigned)at[1] << 8));
}

uint32_t bnn_get_u32(const uint8_t *at)
{
    return bnn_get_u16(at) | ((uint32_t)bnn_get_u16(at + 2) << 16);
}

uint64_t bnn_get_u64(const uint8_t *at)
{
    return bnn_get_u32(at) | ((uint64_t)bnn_get_u32(at + 4) << 32);
}

static void decoder_restart(bnn_decoder_t *decoder)
{
    decoder->size = 0;
    decoder->left = 0;
    decoder->zero = false;
    decoder->started = false;
    decoder->spoiled = false;
}

void bnn_decoder_init(bnn_decoder_t *decoder, uint8_t *body, size_t capacity)
{
    decoder->body = body;
    decoder->capacity = capacity;
    decoder_restart(decoder);
}

static void decoder_append(bnn_decoder_t *decoder, uint8_t byte)
{
    if (decoder->size >= decoder->capacity) {
        decoder->spoiled = true;
        return;
    }
    decoder->body[decoder->size] = byte;
    decoder->size++;
}

static int decoder_finish(const bnn_decoder_t *decoder, bnn_frame_t *frame)
{
    const uint8_t *body = decoder->body;
    size_t length;

    if (!decoder->started) {
        return BNN_FRAME_MORE;
    }
    if (decoder->spoiled || decoder->left != 0 || decoder->size < BNN_FRAME_OVERHEAD) {
        return BNN_FRAME_BAD;
    }
    length = bnn_get_u16(body + 4);
    if (length != decoder->size - BNN_FRAME_OVERHEAD) {
        return BNN_FRAME_BAD;
    }
    frame->crc = bnn_get_u32(body + BNN_FRAME_HEADER + length);
    if (frame->crc != bnn_crc32(body, BNN_FRAME_HEADER + length)) {
        return BNN_FRAME_BAD;
    }
    frame->version = body[0];
    frame->type = body[1];
    frame->sequence = bnn_get_u16(body + 2);
    frame->length = (uint16_t)length;
    frame->payload = body + BNN_FRAME_HEADER;
    return BNN_FRAME_READY;
}

int bnn_decoder_push(bnn_decoder_t *decoder, uint8_t byte, bnn_frame_t *frame)
{
    if (byte == 0) {
        int result = decoder_finish(decoder, frame);
        decoder_restart(decoder);
        return result;
    }
    decoder->started = true;
    if (decoder->spoiled) {
        return BNN_FRAME_MORE;
    }
    if (decoder->left > 0) {
        decoder->left--;
        decoder_append(decoder, byte);
    } else {
        /* The zero is due only now: COBS takes none out after the last block. */
        if (decoder->zero) {
            decoder_append(decoder, 0);
        }
        decoder->left = (uint8_t)(byte - 1u);
        decoder->zero = byte != COBS_LONGEST_RUN + 1u;
    }
    return BNN_FRAME_MORE;
}

size_t bnn_frame_seal(uint8_t *body, uint8_t type, uint16_t sequence, uint16_t length)
{
    size_t covered = BNN_FRAME_HEADER + (size_t)length;

    body[0] = BNN_FRAME_VERSION;
    body[1] = type;
    bnn_put_u16(body + 2, sequence);
    bnn_put_u16(body + 4, length);
    bnn_put_u32(body + covered, bnn_crc32(body, covered));
    return BNN_FRAME_OVERHEAD + (size_t)length;
}

void bnn_frame_send(const uint8_t *body, size_t size, bnn_sink_t sink)
{
    static const uint8_t delimiter = 0;
    size_t at = 0;
    bool open = true;

    /* The leading delimiter ends whatever a reset or a fault left on the line. */
    sink(&delimiter, 1);
    while (open) {
        size_t run = 0;
        uint8_t code;

        while (run < COBS_LONGEST_RUN && at + run < size && body[at + run] != 0) {
            run++;
        }
        code = (uint8_t)(run + 1u);
        sink(&code, 1);
        if (run > 0) {
            sink(body + at, run);
        }
        at += run;
        open = at < size;
        if (open && run < COBS_LONGEST_RUN) {
            at++; /* the zero that this block stands for; a last one needs a block after it */
        }
    }
    sink(&delimiter, 1);
}
