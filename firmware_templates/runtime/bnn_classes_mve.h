/*
 * Convolutions of signs with fixed signs, by sign-pattern classes, for four sets
 * of filters at a time: bnn_classes.h with vectors of four words, of which each
 * belongs to a set.  Written for Helium; any core runs it.
 */
#ifndef BNN_CLASSES_MVE_H
#define BNN_CLASSES_MVE_H

#include "bnn_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Sets are taken four at a time, all four with the same number of filters: a
 * vector.  The last filters of the last vector may be more than there are, and
 * what comes out of them is dropped.
 *
 * A list has, for each vector and class, the number of its quads, and then for
 * each entry of these the places among the inputs for the four sets; place 0
 * holds zero, and fills up what is missing.
 *
 * What is added to m - 2 M, modulo 2^planes, makes it negative where the
 * threshold is reached, or, where sums are kept, makes it the mismatches.
 */
typedef struct bnn_classes_mve {
    bnn_shape_t shape; /* groups is 1 */
    const uint16_t *places;
    const uint8_t *sizes;    /* [vectors]: filters of each set, at most BNN_CLASSES_MVE_FILTERS */
    const uint16_t *addend;  /* [vectors][size][4]: complement, plane p in bit 15 - p; or NULL: */
    const uint32_t *edges;   /* [kinds of 32 positions][vectors][size][planes][4]: complement */
    const uint8_t *edge;     /* [positions / 32]: the kind */
    const uint32_t *flip;    /* NULL: no bit is flipped */
    uint16_t slots;          /* filters of all vectors: the sum of 4 * size */
    uint8_t vectors;
    uint8_t run_planes;      /* that hold the sum of a class: 4 at least */
    uint8_t planes;          /* of sums, signed, at most 16 */
    uint8_t stride;          /* planes of the largest number: planes, or run_planes + size - 1 */
    uint8_t bits;            /* 1: bits come out, 0: sums */
    uint8_t relu;
} bnn_classes_mve_t;

#define BNN_CLASSES_MVE_FILTERS 6

/*
 * scratch: 4 * stride words for each class of the largest size, a quarter of
 * them again, and for each of its filters; BNN_CLASSES_MVE_WORDS; out_c words,
 * rounded up to whole 32, or slots if these are more; kernel_h + kernel_w words;
 * two for each input; and 66 words more.
 */
#define BNN_CLASSES_MVE_WORDS (32u * 7u)

void bnn_conv_classes_mve(const bnn_classes_mve_t *conv, const uint32_t *in, uint32_t *scratch,
                          uint32_t *out);

#ifdef __cplusplus
}
#endif

#endif
