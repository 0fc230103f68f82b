/* Sign convolutions with a single output position, and fully connected layers of signs. */
#ifndef BNN_SINGLE_H
#define BNN_SINGLE_H

#include "bnn_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Lanes are output channels: a row holds what one input is multiplied by in each
 * of them.  Inputs in the padding have no row.
 *
 * With thresholds, the bit of a channel is (count >= bound) XOR flip, where the
 * count and the bound are those of the kernel; unused lanes must come out as zero.
 */
typedef struct bnn_single {
    bnn_shape_t shape;    /* out_h = out_w = groups = 1 */
    uint32_t inputs;      /* taps inside the input, times channels */
    uint32_t blocks;      /* of 16 rows that are added up for each word of outputs */
    const uint32_t *rows; /* by the kernel */
    const uint32_t *bound; /* NULL: sums are kept; else bit-planes, by the kernel */
    const uint32_t *flip;  /* with bounds: [words of out_c], of each bound */
    const int32_t *base;   /* without: [out_c], the sum's constant part */
    uint8_t planes;        /* of a count; at most BNN_SINGLE_PLANES */
    uint8_t relu;
} bnn_single_t;

#define BNN_SINGLE_PLANES 24

/*
 * Adds up only the rows of the active inputs, or of the others if these are
 * fewer.  rows: [inputs][words of out_c], and a row of zeros.
 *
 * count = rows added, less half the number of inputs that were added up.
 * bound: [2][words of out_c][planes + 1], the second for the other inputs.
 *
 * The first adds up zeros too until there are 16 * blocks rows, so that the
 * number of instructions does not depend on the input; addresses do.
 * scratch: 16 * blocks + 2 + blocks words.
 */
void bnn_single_padded(const bnn_single_t *single, const uint32_t *in, uint32_t *scratch,
                       uint32_t *out);
void bnn_single_active(const bnn_single_t *single, const uint32_t *in, uint32_t *scratch,
                       uint32_t *out);

/*
 * Adds up all mismatches: neither branches nor addresses depend on the input.
 * rows: [words of out_c][taps inside][in_c, filled up with zeros to a multiple of 16].
 * bound: [words of out_c][planes].  scratch: blocks words.
 */
void bnn_single_dense(const bnn_single_t *single, const uint32_t *in, uint32_t *scratch,
                      uint32_t *out);

#ifdef __cplusplus
}
#endif

#endif
