/* One output position with drawn weights: four filters are drawn side by side. */
#include "bnn_drawn_mve.h"

#include "bnn.h"
#include "bnn_drawn.h"
#include "bnn_internal.h"
#include "bnn_vector_mve.h"

static uint32_t bnn_xorshift(bnn_rng_t *rng)
{
    const uint32_t t = rng->s[0] ^ (rng->s[0] << 11), last = rng->s[3];

    rng->s[0] = rng->s[1];
    rng->s[1] = rng->s[2];
    rng->s[2] = last;
    rng->s[3] = last ^ (last >> 19) ^ t ^ (t >> 8);
    return rng->s[3];
}

/* The state that comes after the words of which jump tells. */
static bnn_rng_t bnn_jumped(bnn_rng_t rng, const uint32_t *jump)
{
    bnn_rng_t later = {{0, 0, 0, 0}};

    for (uint32_t i = 0; i < 128u; i++) {
        const uint32_t mask = 0u - (jump[i / 32u] >> (i % 32u) & 1u);
        for (uint32_t j = 0; j < 4u; j++) {
            later.s[j] ^= rng.s[j] & mask;
        }
        (void)bnn_xorshift(&rng);
    }
    return later;
}

/* Four generators: vector i has word i of each one's state. */
typedef struct bnn_rngs {
    bnn_vec_t s[4];
} bnn_rngs_t;

/*
 * A step of the generators, whose next words take the place of the oldest ones,
 * and x = majority(x, these, plane).
 */
static inline void bnn_vec_step(bnn_vec_t *oldest, bnn_vec_t last, bnn_vec_t *x,
                                const uint32_t *plane, bnn_vec_t places)
{
#if defined(BNN_HELIUM) && defined(__GNUC__)
    /* In assembly, as it takes all eight registers, and compilers spill. */
    bnn_vec_t r = *oldest, sum = *x, t, p;
    __asm__ volatile("vshl.i32 %q[t], %q[r], #11\n\t"
                     "veor %q[r], %q[r], %q[t]\n\t"
                     "vshr.u32 %q[t], %q[r], #8\n\t"
                     "veor %q[r], %q[r], %q[t]\n\t"
                     "vldrw.u32 %q[p], [%[plane], %q[places], uxtw #2]\n\t"
                     "vshr.u32 %q[t], %q[last], #19\n\t"
                     "veor %q[r], %q[r], %q[last]\n\t"
                     "veor %q[p], %q[p], %q[sum]\n\t"
                     "veor %q[r], %q[r], %q[t]\n\t"
                     "veor %q[t], %q[sum], %q[r]\n\t"
                     "vand %q[t], %q[t], %q[p]\n\t"
                     "veor %q[sum], %q[sum], %q[t]"
                     : [r] "+w"(r), [sum] "+w"(sum), [t] "=&w"(t), [p] "=&w"(p)
                     : [last] "w"(last), [places] "w"(places), [plane] "r"(plane)
                     : "memory");
    *oldest = r;
    *x = sum;
#else
    bnn_vec_t t = bnn_vec_xor(*oldest, bnn_vec_left(*oldest, 11));
    t = bnn_vec_xor(t, bnn_vec_right(t, 8));
    t = bnn_vec_xor(t, last);
    *oldest = bnn_vec_xor(t, bnn_vec_right(last, 19));
    const bnn_vec_t p = bnn_vec_xor(*x, bnn_vec_gather(plane, places));
    *x = bnn_vec_xor(*x, bnn_vec_and(bnn_vec_xor(*x, *oldest), p));
#endif
}

/* Draws count words for each of four filters, whose planes are at some places from the first's. */
static void bnn_draw_four(bnn_rngs_t *rngs, const uint32_t *planes, bnn_vec_t places, unsigned k,
                          uint32_t *words, uint32_t count)
{
    bnn_vec_t s0 = rngs->s[0], s1 = rngs->s[1], s2 = rngs->s[2], s3 = rngs->s[3];

    for (; count > 0; count--, words += 4) {
        bnn_vec_t x = bnn_vec_gather(planes + (k - 1u), places);
        unsigned j = k;
        for (; j >= 4u; j -= 4u, planes += 4) {
            bnn_vec_step(&s0, s3, &x, planes, places);
            bnn_vec_step(&s1, s0, &x, planes + 1, places);
            bnn_vec_step(&s2, s1, &x, planes + 2, places);
            bnn_vec_step(&s3, s2, &x, planes + 3, places);
        }
        for (; j > 0; j--, planes++) {
            bnn_vec_step(&s0, s3, &x, planes, places);
            const bnn_vec_t newest = s0;
            s0 = s1;
            s1 = s2;
            s2 = s3;
            s3 = newest;
        }
        bnn_vec_store(words, x);
    }
    rngs->s[0] = s0;
    rngs->s[1] = s1;
    rngs->s[2] = s2;
    rngs->s[3] = s3;
}

static inline bnn_vec_t bnn_vec_sum(bnn_vec_t a, bnn_vec_t b)
{
#if defined(BNN_HELIUM)
    return vaddq_u32(a, b);
#else
    return bnn_vec_of(a.w[0] + b.w[0], a.w[1] + b.w[1], a.w[2] + b.w[2], a.w[3] + b.w[3]);
#endif
}

/* The bits of each word. */
static bnn_vec_t bnn_vec_popcount(bnn_vec_t v)
{
    const bnn_vec_t pairs = bnn_vec_all(0x55555555u), quads = bnn_vec_all(0x33333333u);
    const bnn_vec_t odd = bnn_vec_and(bnn_vec_right(v, 1), pairs);

    v = bnn_vec_sum(bnn_vec_and(v, pairs), odd);
    v = bnn_vec_sum(bnn_vec_and(v, quads), bnn_vec_and(bnn_vec_right(v, 2), quads));
    v = bnn_vec_and(bnn_vec_sum(v, bnn_vec_right(v, 4)), bnn_vec_all(0x0F0F0F0Fu));
    v = bnn_vec_sum(v, bnn_vec_right(v, 8));
    return bnn_vec_and(bnn_vec_sum(v, bnn_vec_right(v, 16)), bnn_vec_all(0x3Fu));
}

/* Two words of four filters are compared with the window; the carry is returned. */
static inline bnn_vec_t bnn_vec_compare(bnn_vec_t *ones, const uint32_t *words,
                                        const uint32_t *window)
{
    const bnn_vec_t a = bnn_vec_xor(bnn_vec_load(words), bnn_vec_all(window[0]));
    const bnn_vec_t b = bnn_vec_xor(bnn_vec_load(words + 4), bnn_vec_all(window[1]));
    const bnn_vec_t carry = bnn_vec_add3(ones, a, b);
    BNN_VEC_ORDER();
    return carry;
}

/* The bits in which four filters, side by side, differ from a window. */
static bnn_vec_t bnn_vec_differing(const uint32_t *window, const uint32_t *words, uint32_t count)
{
    const bnn_vec_t zero = bnn_vec_all(0);
    bnn_vec_t ones = zero, twos = zero, fours = zero, high = zero, total;

    for (; count >= 8u; count -= 8u, words += 32, window += 8) {
        bnn_vec_t a = bnn_vec_compare(&ones, words, window);
        bnn_vec_t b = bnn_vec_compare(&ones, words + 8, window + 2);
        const bnn_vec_t c = bnn_vec_add3(&twos, a, b);
        a = bnn_vec_compare(&ones, words + 16, window + 4);
        b = bnn_vec_compare(&ones, words + 24, window + 6);
        a = bnn_vec_add3(&fours, c, bnn_vec_add3(&twos, a, b));
        high = bnn_vec_sum(high, bnn_vec_popcount(a));
    }
    total = bnn_vec_sum(bnn_vec_left(high, 1), bnn_vec_popcount(fours));
    total = bnn_vec_sum(bnn_vec_left(total, 1), bnn_vec_popcount(twos));
    total = bnn_vec_sum(bnn_vec_left(total, 1), bnn_vec_popcount(ones));
    for (; count > 0; count--, words += 4, window++) {
        const bnn_vec_t v = bnn_vec_xor(bnn_vec_load(words), bnn_vec_all(*window));
        total = bnn_vec_sum(total, bnn_vec_popcount(v));
    }
    return total;
}

/* Mismatches to bits or sums. */
static void bnn_put_counts(const bnn_conv_bits_t *conv, const uint32_t *counts, uint32_t *out)
{
    const bnn_shape_t *s = &conv->shape;
    const int32_t inputs = (int32_t)((uint32_t)s->kernel_h * s->kernel_w * s->in_c);
    uint32_t bits = 0;

    for (uint32_t channel = 0; channel < s->out_c; channel++) {
        const uint32_t sum = (uint32_t)(inputs - 2 * (int32_t)counts[channel]);
        if (conv->output.threshold == NULL) {
            const uint32_t drop = conv->output.relu ? 0u - (sum >> 31) : 0;
            *out++ = sum & ~drop;
            continue;
        }
        const int64_t below = (int64_t)(int32_t)sum - conv->output.threshold[channel];
        bits |= (1u ^ (uint32_t)((uint64_t)below >> 63)) << (channel % 32u);
        if (channel % 32u == 31u || channel + 1u == s->out_c) {
            *out++ = conv->output.flip != NULL ? bits ^ conv->output.flip[channel / 32u] : bits;
            bits = 0;
        }
    }
}

/* The words of the window, which lies in the input. */
static void bnn_copy_window(const bnn_shape_t *s, const uint32_t *in, uint32_t *to)
{
    const bnn_window_t at = bnn_window(s, 0, 0);
    const uint32_t words = bnn_words(s->in_c);

    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < s->kernel_w; kx++) {
            const uint32_t *from = in + bnn_position(s, &at, ky, kx) * words;
            for (uint32_t i = 0; i < words; i++) {
                *to++ = *from++;
            }
        }
    }
}

void bnn_conv_drawn_vectors(const bnn_drawn_mve_t *drawn, const uint32_t *in, uint32_t *scratch,
                            uint32_t *out, bnn_rng_t *rng, bnn_draw_t draw, unsigned planes)
{
    const bnn_conv_bits_t *conv = &drawn->conv;
    const bnn_shape_t *s = &conv->shape;
    const uint32_t size = (uint32_t)s->kernel_h * s->kernel_w * bnn_words(s->in_c);
    const uint32_t part = s->out_c / 4u, step = part * size * planes;
    uint32_t *const window = scratch, *const words = window + size;
    uint32_t *const counts = words + 4u * size;

    if (draw != bnn_draw_xorshift128) {
        bnn_conv_drawn_single(conv, in, scratch, out, rng, draw, planes);
        return;
    }
    bnn_copy_window(s, in, window);
    uint32_t states[4][4];
    bnn_rng_t state = *rng;
    for (uint32_t i = 0; i < 4u; i++) {
        for (uint32_t j = 0; j < 4u; j++) {
            states[j][i] = state.s[j];
        }
        if (i < 3u) {
            state = bnn_jumped(state, drawn->jump);
        }
    }
    bnn_rngs_t rngs;
    for (uint32_t j = 0; j < 4u; j++) {
        rngs.s[j] = bnn_vec_load(states[j]);
    }
    const uint32_t at[4] = {0, step, 2u * step, 3u * step};
    const uint32_t filters[4] = {0, part, 2u * part, 3u * part};
    const bnn_vec_t places = bnn_vec_load(at), lanes = bnn_vec_load(filters);
    for (uint32_t i = 0; i < part; i++) {
        bnn_draw_four(&rngs, conv->weights + (size_t)i * size * planes, places, planes, words,
                      size);
        bnn_vec_scatter(counts + i, lanes, bnn_vec_differing(window, words, size));
    }
    /* The last part's generator goes on with the filters that are left. */
    for (uint32_t j = 0; j < 4u; j++) {
        bnn_vec_store(states[j], rngs.s[j]);
        rng->s[j] = states[j][3];
    }
    for (uint32_t i = 4u * part; i < s->out_c; i++) {
        uint32_t count = 0;
        draw(rng, conv->weights + (size_t)i * size * planes, planes, words, size);
        for (uint32_t j = 0; j < size; j++) {
            count += bnn_popcount(words[j] ^ window[j]);
        }
        counts[i] = count;
    }
    bnn_put_counts(conv, counts, out);
}
