/* Convolutions of pixels with int16 weights: fast FIR filters, and pairs of products. */
#ifndef BNN_FIRST_H
#define BNN_FIRST_H

#include "bnn_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Weights are pairs of int16, the first in the low half of a word.
 *
 * With thresholds, bias is what is added to a sum so that it is negative where
 * the bit is zero, and flip has the unused lanes too: a bit is (sum + bias < 0)
 * XOR flip.  Without, bias is NULL.
 */
typedef struct bnn_first {
    bnn_shape_t shape;       /* groups = 1 */
    const uint32_t *weights; /* by the kernel */
    const uint8_t *fill;     /* [in_c]: the pixel that padding stands for; NULL for 0 */
    const int32_t *bias;     /* [out_c], by pairs in the fast FIR filter; NULL: sums are kept */
    const uint32_t *flip;    /* [words of out_c], with bias */
    uint8_t relu;
} bnn_first_t;

/* Columns of windows that the fast FIR filter makes in one go: pairs, and words of their pixels. */
#define BNN_FIR_PAIRS 7u
#define BNN_FIR_WORDS 17u
/* Filters of one go. */
#define BNN_FIR_FILTERS 32u
/* Words of scratch besides those for each channel. */
#define BNN_FIR_SUMS (6u * BNN_FIR_FILTERS * BNN_FIR_PAIRS)
#define BNN_FIR_CHANNEL (6u * BNN_FIR_WORDS + 9u * 32u)

/*
 * Stride 2, kernels up to 8 x 8, no dilation: a two-dimensional fast FIR filter
 * with 144 products for four sums instead of 256.
 *
 * A stride of 2 makes four phases of at most 4 x 4 taps with stride 1.  In each
 * direction, with x the pixels and h0, h1 the even and the odd taps of a phase,
 *
 *     y[2m] = h0 (x[2m] - x[2m + 1]) + (h0 + h1) x[2m + 1]
 *     y[2m + 1] = h1 (x[2m + 2] - x[2m + 1]) + (h0 + h1) x[2m + 1]
 *
 * weights: for each 32 filters (an even number: the last may be one of zeros), for
 * column part (x0 - x1, x1, x2 - x1), for row part (x1, x0 - x1, x2 - x1), for
 * channel, for filter: [s][a][t] pairs b, the tap of row 4 s + 2 q + a and of
 * column 4 t + 2 r + b, where q and r are 0 in the first part, 1 in the last and
 * summed over in the middle one.
 * With a bias, what is summed over one column part, and the middle one with the
 * bias, is within 2^30.
 * scratch: BNN_FIR_SUMS + in_c * BNN_FIR_CHANNEL words.
 */
void bnn_first_fir(const bnn_first_t *first, const uint8_t *in, uint32_t *scratch, uint32_t *out);

/* Positions and filters whose sums the direct kernel makes in one go. */
#define BNN_DIRECT_POSITIONS 3u
#define BNN_DIRECT_FILTERS 2u

/*
 * Any kernel, stride, padding and dilation: pairs of products.  A row of a window is filled
 * up with a zero to whole pairs, and rows to an even number of pairs.
 * weights: for each two filters (the last may be one of zeros) [pairs][2].
 * scratch: three words for each pair.
 */
void bnn_first_direct(const bnn_first_t *first, const uint8_t *in, uint32_t *scratch,
                      uint32_t *out);

#ifdef __cplusplus
}
#endif

#endif
