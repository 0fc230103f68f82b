/* Dense layers on integers that fit 16 bits: two products an instruction. */
#ifndef BNN_DENSE_H
#define BNN_DENSE_H

#include "bnn_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Weights are pairs of int16, the first in the low half of a word, filled up with
 * zeros to four pairs and to two outputs: for each two outputs and each two pairs
 * those of the first output, then those of the second.
 */
typedef struct bnn_dense_pairs {
    uint32_t inputs;
    uint16_t outputs;
    const uint32_t *weights;
    const int64_t *bias; /* [outputs]; NULL: none */
} bnn_dense_pairs_t;

/* Inputs are integers within int16.  scratch: a word for each two, rounded up to whole four. */
void bnn_dense_in_pairs(const bnn_dense_pairs_t *dense, const uint32_t *in, uint32_t *scratch,
                        uint32_t *logits);

#ifdef __cplusplus
}
#endif

#endif
