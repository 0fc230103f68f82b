/* What the loops of bnn_toom.c are given; not part of the interface. */
#ifndef BNN_TOOM_TILE_H
#define BNN_TOOM_TILE_H

#include <stdint.h>

/* One tile with some filters. */
typedef struct bnn_tile {
    uint32_t *to;      /* bits: of each position, a word of all filters; sums: [filters][9] */
    const uint32_t *v; /* numbers of the pixels: [column point][row point][words] */
    const uint32_t *end;
    uint32_t fours;
    const uint32_t *weights;
} bnn_tile_t;

#endif
