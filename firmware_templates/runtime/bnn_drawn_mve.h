/* Drawn sign convolutions with a single output position, four filters at a time. */
#ifndef BNN_DRAWN_MVE_H
#define BNN_DRAWN_MVE_H

#include "bnn_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The filters are taken as four parts of out_c / 4, which are drawn side by side:
 * from the generator's state, and from what it is one, two and three parts
 * later.  The states of xorshift128 are linear: with x^n modulo its
 * characteristic polynomial = sum of bit i of jump times x^i, where n are the
 * words of a part, the state n words later is the sum of the states i words
 * later whose bit is set.
 */
typedef struct bnn_drawn_mve {
    bnn_conv_bits_t conv;
    const uint32_t *jump; /* [4] */
} bnn_drawn_mve_t;

/*
 * As bnn_conv_drawn_single, and with the same draws; with another generator than
 * xorshift128 it is that.  Written for Helium; any core runs it.
 * scratch: five times the words of a window, and out_c words.
 */
void bnn_conv_drawn_vectors(const bnn_drawn_mve_t *drawn, const uint32_t *in, uint32_t *scratch,
                            uint32_t *out, bnn_rng_t *rng, bnn_draw_t draw, unsigned planes);

#ifdef __cplusplus
}
#endif

#endif
