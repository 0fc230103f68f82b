/* Sign convolutions with a single output position, for 128 channels at a time. */
#ifndef BNN_SINGLE_MVE_H
#define BNN_SINGLE_MVE_H

#include "bnn_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Lanes are output channels: a row holds what one input is multiplied by in 128
 * of them.  Inputs in the padding have no row.
 *
 * With thresholds, the bit of a channel is (mismatches <= bound) XOR flip;
 * unused lanes must come out as zero.
 */
typedef struct bnn_single_mve {
    bnn_shape_t shape;     /* out_h = out_w = groups = 1 */
    const uint32_t *rows;  /* [vectors][taps inside][in_c, filled up to whole 16][4] */
    const uint32_t *bound; /* NULL: sums are kept; else bit-planes: [vectors][planes][4] */
    const uint32_t *flip;  /* with bounds: [words of out_c] */
    uint32_t inputs;       /* taps inside the input, times channels */
    uint32_t blocks;       /* of 16 rows */
    uint8_t planes;        /* of a count; at most BNN_SINGLE_MVE_PLANES */
    uint8_t relu;
} bnn_single_mve_t;

#define BNN_SINGLE_MVE_PLANES 24u

/*
 * Adds up all mismatches: neither branches nor addresses depend on the input.
 * Written for Helium; any core runs it.
 * scratch: 4 * (blocks + planes) + 32 words.
 */
void bnn_single_vectors(const bnn_single_mve_t *single, const uint32_t *in, uint32_t *scratch,
                        uint32_t *out);

#ifdef __cplusplus
}
#endif

#endif
