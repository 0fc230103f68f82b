/*
 * Jean-Philippe Aumasson and Daniel J. Bernstein, "SipHash: a fast short-input
 * PRF", INDOCRYPT 2012, sections 2.1 to 2.4; names of the state are theirs.
 */
#include "bnn_small.h" /* before any code */

#include "bnn_siphash.h"

#include "bnn_frame.h"

#define WORD_BYTES 8u

typedef struct sip {
    uint64_t v0;
    uint64_t v1;
    uint64_t v2;
    uint64_t v3;
} sip_t;

/* A macro: shifts by a constant take no call of the compiler's library. */
#define ROTATED(word, bits) ((word) << (bits) | (word) >> (64u - (bits)))

static void sip_rounds(sip_t *s, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        s->v0 += s->v1;
        s->v1 = ROTATED(s->v1, 13) ^ s->v0;
        s->v0 = ROTATED(s->v0, 32);
        s->v2 += s->v3;
        s->v3 = ROTATED(s->v3, 16) ^ s->v2;
        s->v0 += s->v3;
        s->v3 = ROTATED(s->v3, 21) ^ s->v0;
        s->v2 += s->v1;
        s->v1 = ROTATED(s->v1, 17) ^ s->v2;
        s->v2 = ROTATED(s->v2, 32);
    }
}

static void take_word(sip_t *s, uint64_t word)
{
    s->v3 ^= word;
    sip_rounds(s, 2);
    s->v0 ^= word;
}

uint64_t bnn_siphash(const uint8_t key[BNN_SIPHASH_KEY_BYTES], const uint8_t *data, size_t size)
{
    const uint64_t k0 = bnn_get_u64(key);
    const uint64_t k1 = bnn_get_u64(key + WORD_BYTES);
    const size_t rest = size % WORD_BYTES;
    /* The last word: what is left, and the length modulo 256 on top. */
    uint64_t last = (uint64_t)size << 56;
    sip_t s;

    s.v0 = k0 ^ UINT64_C(0x736f6d6570736575);
    s.v1 = k1 ^ UINT64_C(0x646f72616e646f6d);
    s.v2 = k0 ^ UINT64_C(0x6c7967656e657261);
    s.v3 = k1 ^ UINT64_C(0x7465646279746573);
    for (size_t at = 0; at + WORD_BYTES <= size; at += WORD_BYTES) {
        take_word(&s, bnn_get_u64(data + at));
    }
    for (size_t i = 0; i < rest; i++) {
        last |= (uint64_t)data[size - rest + i] << (8u * i);
    }
    take_word(&s, last);
    s.v2 ^= 0xffu;
    sip_rounds(&s, 4);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
