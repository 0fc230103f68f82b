/* Convolutions of pixels with int16 weights for cores without DSP instructions. */
#ifndef BNN_TOOM_H
#define BNN_TOOM_H

#include "bnn_first.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Tiles of 3 x 3 sums, by Toom and Cook: where 4 taps meet 3 positions, products
 * of 6 numbers in place of 12, in each direction.  36 products make what 144 would.
 *
 * A stride of s makes s phases of at most 4 taps with stride 1, in each direction:
 * the kernel has at most 4 s.  Phases of all channels are added up as products.
 *
 * The taps are coefficients of a polynomial, of which the 6 numbers are values at
 * 0, 1, -1, 2, 1/2 and infinity.  These leave a factor of 2 in each direction and
 * odd ones, which have inverses modulo 2^32: nothing is ever rounded, and 4 sum + bias
 * must be an int32.
 *
 * weights: for each 32 filters, of these from the last to the first: for each
 * column point, for each row point, a word for each channel, row phase and column
 * phase, filled up with zeros to whole fours; then 4 times the bias, or 0.
 * With thresholds there is flip; no bias besides that in the weights.
 * scratch: BNN_TOOM_WORDS, and 36 for each of those whole fours.
 */
void bnn_first_toom(const bnn_first_t *first, const uint8_t *in, uint32_t *scratch, uint32_t *out);

#define BNN_TOOM_POINTS 6u
#define BNN_TOOM_SIDE 3u
#define BNN_TOOM_SUMS (BNN_TOOM_SIDE * BNN_TOOM_SIDE)
/* Pixels of a tile and phase, and the sums of 32 filters. */
#define BNN_TOOM_WORDS (36u + 32u * BNN_TOOM_SUMS)

#ifdef __cplusplus
}
#endif

#endif
