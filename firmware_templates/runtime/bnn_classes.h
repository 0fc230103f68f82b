/*
 * Convolutions of signs with fixed signs, by sign-pattern classes.
 *
 * Bit lanes are output positions, 32 at a time.  For every input of the window
 * there is a word x, whose lane holds what the position at that lane sees
 * there, and its complement; both are zero where the tap lies in the padding.
 *
 * Filters are taken in sets.  Relative to the first filter of a set, the others
 * agree or disagree at an input: that pattern is the input's class.  A list
 * names, class by class, x or its complement, whichever is set where the first
 * filter mismatches.  Summed over a class, once for all filters of the set, and
 * added up over all classes these are the first filter's mismatches m; and with
 * M over the classes in which filter k disagrees, and n inputs in them, those
 * of filter k are m - 2 M + n.
 */
#ifndef BNN_CLASSES_H
#define BNN_CLASSES_H

#include "bnn_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A list has, for each set, run and class of the set, the number of its quads, at
 * least two, and then four entries for each: as words, the place of a word among the
 * inputs, or 4 times that; as bytes, how far it is from the entry before, the
 * first of run r of n from place words * r / n.
 * A place that holds zero fills up what is missing.  Several runs add up where a
 * class has more inputs than a sum has planes for.
 *
 * What is added to m - 2 M, modulo 2^planes, makes it negative where the
 * threshold is reached, or, where sums are kept, makes it the mismatches.
 */
typedef struct bnn_classes {
    bnn_shape_t shape; /* groups is 1 */
    const uint16_t *places;
    const uint8_t *steps;
    const uint8_t *runs;     /* [sets] */
    const int16_t *addend;   /* [out_c]; NULL: from edges */
    const uint32_t *edges;   /* [kinds of 32 positions][out_c][planes] */
    const uint8_t *edge;     /* [positions / 32]: the kind */
    const uint32_t *flip;    /* NULL: no bit is flipped */
    uint16_t words;          /* of the inputs */
    uint16_t pitch;          /* words of a channel's plane of the input; 0: there are none */
    uint16_t guard;          /* words of it before the first position */
    uint8_t filters;         /* of a set; the last may have fewer */
    uint16_t larger;         /* so many sets, the first ones, have one more */
    uint8_t run_planes;      /* that hold the sum of a run */
    uint8_t planes;          /* of sums, signed, at most 16 */
    uint8_t bits;            /* 1: bits come out, 0: sums */
    uint8_t relu;
} bnn_classes_t;

/* The most that a set may have. */
#define BNN_CLASSES_FILTERS 7u

/*
 * scratch: BNN_CLASSES_WORDS with the classes of the largest set, 2^(filters - 1);
 * out_c words, rounded up to whole 32; kernel_w words; in_c, rounded up to whole
 * 32, times pitch; and the inputs: a word, two for each input, one more after
 * every three words of channels, and one at the end; and 16 words more.
 */
#define BNN_CLASSES_WORDS(classes) (16u * (2u * (classes) + BNN_CLASSES_FILTERS) + 32u * 4u)

/* With lists as words. */
void bnn_conv_classes(const bnn_classes_t *conv, const uint32_t *in, uint32_t *scratch,
                      uint32_t *out);

/* With lists as words that count bytes, for cores that would have to multiply. */
void bnn_conv_class_offsets(const bnn_classes_t *conv, const uint32_t *in, uint32_t *scratch,
                            uint32_t *out);

/* With lists as bytes. */
void bnn_conv_class_steps(const bnn_classes_t *conv, const uint32_t *in, uint32_t *scratch,
                          uint32_t *out);

#ifdef __cplusplus
}
#endif

#endif
