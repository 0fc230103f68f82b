/*
 * What the files of the class kernels share.  Not part of the interface.
 */
#ifndef BNN_CLASSES_INTERNAL_H
#define BNN_CLASSES_INTERNAL_H

#include "bnn_classes.h"
#include "bnn_internal.h"

/* Words from one number in bit-planes to the next. */
#define BNN_STRIDE 16u

/* The memory of one call. */
typedef struct bnn_room {
    uint32_t *x;
    uint32_t *sums;  /* [classes] numbers */
    uint32_t *more;  /* [classes] numbers: of a further run, and on the way of folding */
    uint32_t *marks; /* [BNN_CLASSES_FILTERS] numbers: M of each filter */
    uint32_t *block; /* [32] words that are transposed */
    uint32_t *y, *x0; /* [32] each: where each lane's window begins, modulo 2^32 */
    uint32_t *taps;  /* [32]: inputs of each lane */
    uint32_t *rows;  /* [out_c, whole 32]: a bit of each filter for all lanes */
    uint32_t *cols;  /* [kernel_w]: the lanes whose tap is in a column of the input */
    uint32_t *planes; /* [in_c, whole 32][pitch]: the bits of each channel */
} bnn_room_t;

/* Row i, bit j of 32 rows becomes row j, bit i. */
void bnn_transpose(uint32_t *rows);

/*
 * Every channel's bits of the whole input, position after position, from bit
 * 32 * guard on: a window's tap at stride 1, in an output as wide as the input,
 * sees them shifted.  What lies around them is read, but never counts.
 */
void bnn_class_planes(const bnn_classes_t *conv, const uint32_t *in, const bnn_room_t *room);

/* Fills x for the positions from first on. */
void bnn_class_inputs(const bnn_classes_t *conv, const uint32_t *in, const bnn_room_t *room,
                      uint32_t first, uint32_t lanes);

/* How many of those inputs each lane's window has inside. */
void bnn_class_taps(const bnn_shape_t *s, const bnn_room_t *room, uint32_t lanes);

/* A bit of every filter and lane, from rows of lanes to words of channels. */
void bnn_class_bits(const bnn_classes_t *conv, const bnn_room_t *room, uint32_t first,
                    uint32_t lanes, uint32_t *out);

/* One filter's mismatches in bit-planes, in the block, become sums. */
void bnn_class_sums(const bnn_classes_t *conv, const bnn_room_t *room, uint32_t first,
                    uint32_t lanes, uint32_t filter, uint32_t *out);

#endif
