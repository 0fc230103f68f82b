#include "fuzz_wire.h"

#include <string.h>

static uint32_t crc32_of(const uint8_t *data, size_t size)
{
    uint32_t crc = 0xFFFFFFFFu;

    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0xEDB88320u : 0u);
        }
    }
    return crc ^ 0xFFFFFFFFu;
}

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] + 256u * at[1]);
}

size_t wire_decode(const uint8_t *coded, size_t size, uint8_t *body)
{
    size_t at = 0;
    size_t out = 0;

    while (at < size) {
        size_t code = coded[at];

        if (code == 0 || at + code > size) {
            return 0;
        }
        memcpy(body + out, coded + at + 1, code - 1u);
        out += code - 1u;
        at += code;
        if (code < 255u && at < size) {
            body[out++] = 0;
        }
    }
    return out;
}

bool wire_parse(const uint8_t *body, size_t size, wire_frame_t *frame)
{
    uint32_t crc;

    if (size < WIRE_OVERHEAD || get16(body + 4) != size - WIRE_OVERHEAD) {
        return false;
    }
    crc = get16(body + size - 4) | ((uint32_t)get16(body + size - 2) << 16);
    if (crc != crc32_of(body, size - 4u)) {
        return false;
    }
    frame->version = body[0];
    frame->type = body[1];
    frame->sequence = get16(body + 2);
    frame->length = get16(body + 4);
    frame->payload = body + WIRE_HEADER;
    return true;
}

void wire_seal(uint8_t *body, size_t size)
{
    size_t length = size - WIRE_OVERHEAD;
    uint32_t crc;

    body[4] = (uint8_t)(length & 255u);
    body[5] = (uint8_t)(length >> 8 & 255u);
    crc = crc32_of(body, size - 4u);
    for (size_t i = 0; i < 4u; i++) {
        body[size - 4u + i] = (uint8_t)(crc >> 8u * i & 255u);
    }
}

size_t wire_encode(const uint8_t *body, size_t size, uint8_t *wire)
{
    size_t out = 0;
    size_t code_at;

    wire[out++] = 0;
    code_at = out++;
    for (size_t i = 0; i < size; i++) {
        if (body[i] != 0) {
            wire[out++] = body[i];
        }
        if (body[i] == 0 || out - code_at == 255u) {
            wire[code_at] = (uint8_t)(out - code_at);
            /* A full block at the very end needs none after it; a zero always does. */
            if (body[i] != 0 && i + 1u == size) {
                wire[out++] = 0;
                return out;
            }
            code_at = out++;
        }
    }
    wire[code_at] = (uint8_t)(out - code_at);
    wire[out++] = 0;
    return out;
}
