/* Dense layers on integers that fit 16 bits: two products an instruction. */
#include "bnn_dense.h"

#include "bnn_internal.h"

#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && defined(__GNUC__)
#define BNN_PAIRS_STEP                                                                             \
    "ldrd %[x], %[y], [%[in]], #8\n\t"                                                             \
    "ldrd %[u], %[v], [%[w]], #8\n\t"                                                              \
    "smlald %Q[a], %R[a], %[x], %[u]\n\t"                                                          \
    "smlald %Q[a], %R[a], %[y], %[v]\n\t"                                                          \
    "ldrd %[u], %[v], [%[w]], #8\n\t"                                                              \
    "smlald %Q[b], %R[b], %[x], %[u]\n\t"                                                          \
    "smlald %Q[b], %R[b], %[y], %[v]\n\t"

/* Adds the products of pairs, a multiple of four and not zero; returns the next weights. */
static inline const uint32_t *bnn_pair_outputs(const uint32_t *in, const uint32_t *w,
                                              uint32_t pairs, int64_t sums[2])
{
    uint32_t x, y, u, v;

    __asm__ volatile("1:\n\t" BNN_PAIRS_STEP BNN_PAIRS_STEP
                     "subs %[pairs], %[pairs], #4\n\t"
                     "bne 1b"
                     : [in] "+r"(in), [w] "+r"(w), [pairs] "+r"(pairs), [a] "+r"(sums[0]),
                       [b] "+r"(sums[1]), [x] "=&r"(x), [y] "=&r"(y), [u] "=&r"(u), [v] "=&r"(v)
                     :
                     : "cc", "memory");
    return w;
}
#else
static int64_t bnn_pair_of(uint32_t x, uint32_t w)
{
    const int32_t low = (int32_t)(int16_t)(uint16_t)x * (int16_t)(uint16_t)w;
    const int32_t high = (int32_t)(int16_t)(uint16_t)(x >> 16) * (int16_t)(uint16_t)(w >> 16);
    return (int64_t)low + high;
}

static const uint32_t *bnn_pair_outputs(const uint32_t *in, const uint32_t *w, uint32_t pairs,
                                       int64_t sums[2])
{
    for (; pairs > 0; pairs -= 2, in += 2, w += 4) {
        sums[0] += bnn_pair_of(in[0], w[0]) + bnn_pair_of(in[1], w[1]);
        sums[1] += bnn_pair_of(in[0], w[2]) + bnn_pair_of(in[1], w[3]);
    }
    return w;
}
#endif

void bnn_dense_in_pairs(const bnn_dense_pairs_t *dense, const uint32_t *in, uint32_t *scratch,
                        uint32_t *logits)
{
    const uint32_t whole = dense->inputs / 2u, pairs = (dense->inputs + 7u) / 8u * 4u;
    const uint32_t *w = dense->weights;

    for (uint32_t i = 0; i < whole; i++, in += 2) {
        scratch[i] = (in[0] & 0xFFFFu) | in[1] << 16;
    }
    for (uint32_t i = whole; i < pairs; i++) {
        scratch[i] = i == whole && dense->inputs % 2u != 0 ? *in & 0xFFFFu : 0;
    }
    for (uint32_t o = 0; o < dense->outputs; o += 2) {
        int64_t sums[2] = {0, 0};
        w = bnn_pair_outputs(scratch, w, pairs, sums);
        for (uint32_t i = 0; i < 2u && o + i < dense->outputs; i++) {
            const int64_t bias = dense->bias != NULL ? dense->bias[o + i] : 0;
            const uint64_t logit = (uint64_t)(sums[i] + bias);
            *logits++ = (uint32_t)logit;
            *logits++ = (uint32_t)(logit >> 32);
        }
    }
}
