/* What the files of the class kernel with vectors share.  Not part of the interface. */
#ifndef BNN_CLASSES_INTERNAL_MVE_H
#define BNN_CLASSES_INTERNAL_MVE_H

#include "bnn_classes_mve.h"
#include "bnn_internal.h"
#include "bnn_vector_mve.h"

/* The memory of one call. */
typedef struct bnn_room_mve {
    uint32_t *sums;  /* [classes][stride][4]: numbers in bit-planes */
    uint32_t *more;  /* [classes / 4][stride][4]: on the way of folding */
    uint32_t *marks; /* [filters][stride][4]: M of each filter; the first stays zero */
    uint32_t *value; /* [32][4]: planes of sums */
    uint32_t *block; /* [32]: words that are transposed */
    uint32_t *taps;  /* [32]: inputs of each lane */
    uint32_t *lane;  /* [8][4]: where the windows of the lanes begin, as vectors go */
    uint32_t *rows;  /* [out_c, whole 32; slots]: a bit of each filter for all lanes */
    uint32_t *down;  /* [kernel_h]: the lanes whose tap is in a row of the input */
    uint32_t *along; /* [kernel_w]: the same of columns */
    uint32_t *x;
} bnn_room_mve_t;

/* Fills x for the positions from first on: a zero, and each input and its complement. */
void bnn_class_inputs_mve(const bnn_shape_t *s, const uint32_t *in, const bnn_room_mve_t *room,
                          uint32_t first, uint32_t lanes);

/* How many of those inputs each lane's window has inside. */
void bnn_class_taps_mve(const bnn_shape_t *s, const bnn_room_mve_t *room, uint32_t lanes);

#endif
