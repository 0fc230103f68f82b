/* Drawn sign convolutions with a single output position. */
#ifndef BNN_DRAWN_H
#define BNN_DRAWN_H

#include "bnn_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * As bnn_conv_drawn, for out_h = out_w = groups = 1 and a window that lies in
 * the input: each filter is drawn and used at once.
 * scratch: twice the words of a window, and a 16th of them.
 */
void bnn_conv_drawn_single(const bnn_conv_bits_t *conv, const uint32_t *in, uint32_t *scratch,
                           uint32_t *out, bnn_rng_t *rng, bnn_draw_t draw, unsigned planes);

#ifdef __cplusplus
}
#endif

#endif
