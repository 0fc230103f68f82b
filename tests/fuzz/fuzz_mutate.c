/*
 * A mutator that knows frames: it changes what is inside and sets length, CRC
 * and coding right again, so that a change gets past the checksum.  One in four
 * changes is made to the wire itself.
 *
 * FUZZ_WIRE_STARTS is the number of bytes before the wire in an input.
 */
#include "fuzz_wire.h"

#include <string.h>

#include "bnn_protocol.h"

#ifndef FUZZ_WIRE_STARTS
#define FUZZ_WIRE_STARTS 0u
#endif

#define MOST 8192u
#define MOST_CHUNKS 64u

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

typedef struct chunk {
    size_t at;
    size_t size;
} chunk_t;

static uint32_t state;

static uint32_t any(uint32_t below)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

/* What lies between zeros, with the zeros around it. */
static size_t cut(const uint8_t *data, size_t size, chunk_t *chunks)
{
    size_t count = 0;
    size_t start = FUZZ_WIRE_STARTS;

    for (size_t i = start; i < size && count < MOST_CHUNKS; i++) {
        if (data[i] == 0) {
            if (i > start) {
                chunks[count].at = start;
                chunks[count].size = i - start;
                count++;
            }
            start = i + 1u;
        }
    }
    return count;
}

/* `size` bytes at `at` give way to others; returns the new size, or the old one if it is too much. */
static size_t splice(uint8_t *data, size_t total, size_t most, chunk_t old, const uint8_t *with,
                     size_t size)
{
    if (total - old.size + size > most) {
        return total;
    }
    memmove(data + old.at + size, data + old.at + old.size, total - old.at - old.size);
    memcpy(data + old.at, with, size);
    return total - old.size + size;
}

/* A request as a host would send it, coded; its sequence number and bytes are chance. */
static size_t template_frame(uint8_t *wire)
{
    static const uint8_t types[] = {BNN_TYPE_HELLO,    BNN_TYPE_INFER, BNN_TYPE_INFER,
                                    BNN_TYPE_COUNTERS, BNN_TYPE_SAMPLE, BNN_TYPE_CHECK,
                                    BNN_TYPE_LAST_FAULT, BNN_TYPE_BAUD, 0x08};
    uint8_t body[WIRE_OVERHEAD + 4u + BNN_MODEL_INPUT_BYTES + 8u * 32u];
    size_t length = 0;

    for (size_t i = 0; i < sizeof body; i++) {
        body[i] = (uint8_t)(any(3) != 0 ? any(256) : 0u);
    }
    body[0] = BNN_FRAME_VERSION;
    body[1] = types[any(sizeof types)];
    body[3] = 0;
    if (body[1] == BNN_TYPE_INFER) {
        body[6] = 0;
        body[7] = (uint8_t)(1u + any(any(4) == 0 ? 21u : 3u));
        length = 2u + BNN_MODEL_INPUT_BYTES;
#ifdef BNN_FIELD
        /* One in four as if it were in evaluation mode. */
        length += any(4) == 0 ? 8u * (size_t)body[7] : 0u;
#else
        length += 8u * (size_t)body[7];
#endif
    } else if (body[1] == BNN_TYPE_SAMPLE) {
        length = BNN_SAMPLE_REQUEST;
        body[6] = (uint8_t)any(8);
        memset(body + 6 + 9, 0, 6);
        body[6 + 9] = (uint8_t)any(40);
        body[6 + 13] = (uint8_t)(1u + any(40));
    } else if (body[1] == BNN_TYPE_BAUD) {
        length = 4u + any(12);
        if (any(2) == 0) {
            memset(body + 6, 0, 4);
            body[7] = (uint8_t)any(256);
        }
    }
    wire_seal(body, WIRE_OVERHEAD + length);
    return wire_encode(body, WIRE_OVERHEAD + length, wire);
}

/* Another frame in place of the one in a chunk: the same with something changed. */
static size_t change_frame(const uint8_t *coded, size_t size, uint8_t *wire)
{
    static uint8_t body[2u * MOST];
    size_t decoded = wire_decode(coded, size, body);

    if (decoded < WIRE_OVERHEAD || decoded > MOST) {
        return 0;
    }
    switch (any(4)) {
    case 0:
        body[any(WIRE_HEADER)] = (uint8_t)any(256);
        break;
    case 1:
        /* Another number, or the cache would answer a repeated request. */
        body[2] = (uint8_t)any(256);
        if (decoded > WIRE_OVERHEAD) {
            body[WIRE_HEADER + any((uint32_t)(decoded - WIRE_OVERHEAD))] ^= (uint8_t)(1u << any(8));
        }
        break;
    default: {
        size_t length = decoded - WIRE_OVERHEAD;

        length = LLVMFuzzerMutate(body + WIRE_HEADER, length, length + 16u);
        decoded = WIRE_OVERHEAD + length;
        break;
    }
    }
    wire_seal(body, decoded);
    return wire_encode(body, decoded, wire);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    static uint8_t wire[4u * MOST];
    chunk_t chunks[MOST_CHUNKS];
    chunk_t chosen;
    size_t count;
    size_t made;

    state = seed;
    (void)any(2);
    if (max_size > MOST) {
        max_size = MOST;
    }
    count = cut(data, size, chunks);
    if (any(4) == 0 || size < FUZZ_WIRE_STARTS + 1u) {
        return LLVMFuzzerMutate(data, size, max_size);
    }
    if (count == 0 || any(4) == 0) {
        /* One more request, before a frame that is there or at the end. */
        chosen.at = count == 0 || any(2) == 0 ? size : chunks[any((uint32_t)count)].at;
        chosen.size = 0;
        made = template_frame(wire);
        return splice(data, size, max_size, chosen, wire, made);
    }
    chosen = chunks[any((uint32_t)count)];
    switch (any(6)) {
    case 0:
        return splice(data, size, max_size, chosen, wire, 0);
    case 1:
        /* The same again: a retry, or a frame that the line doubled. */
        memcpy(wire, data + chosen.at, chosen.size);
        wire[chosen.size] = 0;
        made = chosen.size + 1u;
        chosen.size = 0;
        return splice(data, size, max_size, chosen, wire, made);
    default:
        made = change_frame(data + chosen.at, chosen.size, wire);
        if (made == 0) {
            return LLVMFuzzerMutate(data, size, max_size);
        }
        return splice(data, size, max_size, chosen, wire, made);
    }
}
