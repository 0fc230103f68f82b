/* Convolutions of pixels with int16 weights, eight products at a time. */
#ifndef BNN_FIRST_MVE_H
#define BNN_FIRST_MVE_H

#include "bnn_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * With thresholds, bias is what is added to a sum so that it is negative where
 * the bit is zero, and flip has the unused lanes too: a bit is (sum + bias < 0)
 * XOR flip.  Without, bias is NULL.
 */
typedef struct bnn_first_mve {
    bnn_shape_t shape;      /* groups = 1 */
    const int16_t *weights; /* [chunks][out_c][8]: windows in chunks of eight, filled up with 0 */
    const uint8_t *fill;    /* [in_c]: the pixel that padding stands for; NULL for 0 */
    const int32_t *bias;    /* [out_c]; NULL: sums are kept */
    const uint32_t *flip;   /* [words of out_c], with bias */
    uint16_t chunks;        /* of a window */
    uint8_t relu;
} bnn_first_mve_t;

/* Windows that are taken at a time: as many as there are registers for their sums. */
#define BNN_FIRST_MVE_WINDOWS 7u

/*
 * Any kernel, stride, padding and dilation.  Written for Helium; any core runs it.
 * scratch: 8 * out_c words; 2 * chunks words for each of seven windows, and 2; and
 * the bytes of all pixels that a window sees, padding included, and 8.
 */
void bnn_first_vectors(const bnn_first_mve_t *first, const uint8_t *in, uint32_t *scratch,
                       uint32_t *out);

#ifdef __cplusplus
}
#endif

#endif
