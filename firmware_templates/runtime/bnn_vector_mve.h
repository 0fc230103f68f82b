/*
 * Four words at once: Helium (the M-profile Vector Extension) where the core
 * has it, and what it does in C everywhere else.  Not part of the interface.
 */
#ifndef BNN_VECTOR_MVE_H
#define BNN_VECTOR_MVE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__ARM_FEATURE_MVE) && !defined(BNN_PORTABLE)
#define BNN_HELIUM 1
#include <arm_mve.h>

typedef uint32x4_t bnn_vec_t;

static inline bnn_vec_t bnn_vec_load(const uint32_t *from)
{
    return vldrwq_u32(from);
}

static inline void bnn_vec_store(uint32_t *to, bnn_vec_t v)
{
    vstrwq_u32(to, v);
}

static inline bnn_vec_t bnn_vec_all(uint32_t word)
{
    return vdupq_n_u32(word);
}

/* Four 16-bit numbers. */
static inline bnn_vec_t bnn_vec_halves(const uint16_t *from)
{
    return vldrhq_u32(from);
}

/* Word i is base[at[i]], of which the addresses are modulo 2^32. */
static inline bnn_vec_t bnn_vec_gather(const uint32_t *base, bnn_vec_t at)
{
    return vldrwq_gather_shifted_offset_u32(base, at);
}

/* to[at[i]] = word i. */
static inline void bnn_vec_scatter(uint32_t *to, bnn_vec_t at, bnn_vec_t v)
{
    vstrwq_scatter_shifted_offset_u32(to, at, v);
}

static inline bnn_vec_t bnn_vec_and(bnn_vec_t a, bnn_vec_t b)
{
    return vandq_u32(a, b);
}

static inline bnn_vec_t bnn_vec_or(bnn_vec_t a, bnn_vec_t b)
{
    return vorrq_u32(a, b);
}

static inline bnn_vec_t bnn_vec_xor(bnn_vec_t a, bnn_vec_t b)
{
    return veorq_u32(a, b);
}

/* a & ~b, and a | ~b. */
static inline bnn_vec_t bnn_vec_bic(bnn_vec_t a, bnn_vec_t b)
{
    return vbicq_u32(a, b);
}

static inline bnn_vec_t bnn_vec_orn(bnn_vec_t a, bnn_vec_t b)
{
    return vornq_u32(a, b);
}

static inline bnn_vec_t bnn_vec_add(bnn_vec_t a, uint32_t b)
{
    return vaddq_n_u32(a, b);
}

#define bnn_vec_left(a, n) vshlq_n_u32(a, n)
#define bnn_vec_right(a, n) vshrq_n_u32(a, n)

/* All bits of a word are its highest one. */
static inline bnn_vec_t bnn_vec_signs(bnn_vec_t a)
{
    return vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_u32(a), 31));
}
/* The highest bit of b behind the bits of a, whose highest one is lost. */
static inline bnn_vec_t bnn_vec_shift_in(bnn_vec_t a, bnn_vec_t b)
{
    return vsriq_n_u32(vshlq_n_u32(a, 1), b, 31);
}
#else
typedef struct bnn_vec {
    uint32_t w[4];
} bnn_vec_t;

/* Word by word: sanitizers would take minutes over loops in what is inlined so often. */
static inline bnn_vec_t bnn_vec_of(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const bnn_vec_t v = {{a, b, c, d}};
    return v;
}

static inline bnn_vec_t bnn_vec_load(const uint32_t *from)
{
    return bnn_vec_of(from[0], from[1], from[2], from[3]);
}

static inline void bnn_vec_store(uint32_t *to, bnn_vec_t v)
{
    to[0] = v.w[0];
    to[1] = v.w[1];
    to[2] = v.w[2];
    to[3] = v.w[3];
}

static inline bnn_vec_t bnn_vec_all(uint32_t word)
{
    return bnn_vec_of(word, word, word, word);
}

/* Four 16-bit numbers. */
static inline bnn_vec_t bnn_vec_halves(const uint16_t *from)
{
    return bnn_vec_of(from[0], from[1], from[2], from[3]);
}

/* Word i is base[at[i]]. */
static inline bnn_vec_t bnn_vec_gather(const uint32_t *base, bnn_vec_t at)
{
    return bnn_vec_of(base[at.w[0]], base[at.w[1]], base[at.w[2]], base[at.w[3]]);
}

/* to[at[i]] = word i. */
static inline void bnn_vec_scatter(uint32_t *to, bnn_vec_t at, bnn_vec_t v)
{
    for (uint32_t i = 0; i < 4u; i++) {
        to[at.w[i]] = v.w[i];
    }
}

static inline bnn_vec_t bnn_vec_and(bnn_vec_t a, bnn_vec_t b)
{
    return bnn_vec_of(a.w[0] & b.w[0], a.w[1] & b.w[1], a.w[2] & b.w[2], a.w[3] & b.w[3]);
}

static inline bnn_vec_t bnn_vec_or(bnn_vec_t a, bnn_vec_t b)
{
    return bnn_vec_of(a.w[0] | b.w[0], a.w[1] | b.w[1], a.w[2] | b.w[2], a.w[3] | b.w[3]);
}

static inline bnn_vec_t bnn_vec_xor(bnn_vec_t a, bnn_vec_t b)
{
    return bnn_vec_of(a.w[0] ^ b.w[0], a.w[1] ^ b.w[1], a.w[2] ^ b.w[2], a.w[3] ^ b.w[3]);
}

/* a & ~b, and a | ~b. */
static inline bnn_vec_t bnn_vec_bic(bnn_vec_t a, bnn_vec_t b)
{
    return bnn_vec_of(a.w[0] & ~b.w[0], a.w[1] & ~b.w[1], a.w[2] & ~b.w[2], a.w[3] & ~b.w[3]);
}

static inline bnn_vec_t bnn_vec_orn(bnn_vec_t a, bnn_vec_t b)
{
    return bnn_vec_of(a.w[0] | ~b.w[0], a.w[1] | ~b.w[1], a.w[2] | ~b.w[2], a.w[3] | ~b.w[3]);
}

static inline bnn_vec_t bnn_vec_add(bnn_vec_t a, uint32_t b)
{
    return bnn_vec_of(a.w[0] + b, a.w[1] + b, a.w[2] + b, a.w[3] + b);
}

static inline bnn_vec_t bnn_vec_left(bnn_vec_t a, uint32_t n)
{
    return bnn_vec_of(a.w[0] << n, a.w[1] << n, a.w[2] << n, a.w[3] << n);
}

static inline bnn_vec_t bnn_vec_right(bnn_vec_t a, uint32_t n)
{
    return bnn_vec_of(a.w[0] >> n, a.w[1] >> n, a.w[2] >> n, a.w[3] >> n);
}

/* All bits of a word are its highest one. */
static inline bnn_vec_t bnn_vec_signs(bnn_vec_t a)
{
    return bnn_vec_of(0u - (a.w[0] >> 31), 0u - (a.w[1] >> 31),
                      0u - (a.w[2] >> 31), 0u - (a.w[3] >> 31));
}

/* The highest bit of b behind the bits of a, whose highest one is lost. */
static inline bnn_vec_t bnn_vec_shift_in(bnn_vec_t a, bnn_vec_t b)
{
    return bnn_vec_of(a.w[0] << 1 | b.w[0] >> 31, a.w[1] << 1 | b.w[1] >> 31,
                      a.w[2] << 1 | b.w[2] >> 31, a.w[3] << 1 | b.w[3] >> 31);
}
#endif

/* Compilers load no further ahead than this, and need not spill what they have loaded. */
#if defined(BNN_HELIUM) && defined(__GNUC__)
#define BNN_VEC_ORDER() __asm__ volatile("" ::: "memory")
#else
#define BNN_VEC_ORDER() ((void)0)
#endif

/* Full adder: *sum gets a + b + *sum, the carry is returned. */
static inline bnn_vec_t bnn_vec_add3(bnn_vec_t *sum, bnn_vec_t a, bnn_vec_t b)
{
    const bnn_vec_t partial = bnn_vec_xor(*sum, a);
    const bnn_vec_t carry = bnn_vec_or(bnn_vec_and(*sum, a), bnn_vec_and(partial, b));
    *sum = bnn_vec_xor(partial, b);
    return carry;
}

#endif
