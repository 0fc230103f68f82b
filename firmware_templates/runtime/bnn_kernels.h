/*
 * What a generated model is made of.
 *
 * Bits are packed 32 channels to a word, channel c of a position in word
 * c / 32, bit c % 32; unused bits are zero.  Integers take a word each, pixels
 * a byte; positions follow each other in (row, column) order.
 *
 * Every kernel takes its parameters, what it reads, scratch memory where it
 * needs some, and what it writes.  None may be the same memory, except where
 * it says so.
 */
#ifndef BNN_KERNELS_H
#define BNN_KERNELS_H

#include "bnn.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Where the windows of a convolution or a pool lie; padding is what lies above
 * and to the left.  In a convolution, group g of the filters reads group g of
 * the channels; a filter's weights are those of its own in_c / groups channels.
 */
typedef struct bnn_shape {
    uint16_t in_h, in_w, in_c;
    uint16_t out_h, out_w, out_c;
    uint16_t kernel_h, kernel_w;
    uint16_t stride_y, stride_x;
    uint16_t pad_y, pad_x;
    uint16_t dilation_y, dilation_x;
    uint16_t groups;
} bnn_shape_t;

/*
 * What becomes of a sum.  With thresholds, bit c = (sum >= threshold[c]) XOR
 * bit c of flip, which expresses <=, always and never too.  Without, the sum
 * itself is kept, or its positive part.
 */
typedef struct bnn_output {
    const int32_t *threshold; /* NULL: sums are kept */
    const uint32_t *flip;     /* NULL: no bit is flipped */
    uint8_t relu;
} bnn_output_t;

/* int16 weights [out_c][kernel_h][kernel_w][in_c / groups]. */
typedef struct bnn_conv_integer {
    bnn_shape_t shape;
    const int16_t *weights;
    const uint8_t *fill; /* [in_c]: the pixel that padding stands for; NULL for 0 */
    bnn_output_t output;
} bnn_conv_integer_t;

/*
 * Signs times signs.  Fixed weights are packed words
 * [out_c][kernel_h][kernel_w][words of in_c / groups]: the bits of a group
 * begin a word, wherever they stand in the input.  Drawn ones have k planes
 * for each word.
 */
typedef struct bnn_conv_bits {
    bnn_shape_t shape;
    const uint32_t *weights;
    bnn_output_t output;
} bnn_conv_bits_t;

/*
 * One filter for each channel: in_c = out_c = groups, and lanes are channels.
 * Weights are packed words [kernel_h][kernel_w][words of in_c].
 *
 * The kernel counts n - sum, in bit-planes: twice the mismatches, and one for
 * each tap in the padding.  A bit is (count <= limit) XOR flip, with the limits
 * in bit-planes too: [words of in_c][planes].
 */
typedef struct bnn_conv_lanes {
    bnn_shape_t shape;
    const uint32_t *weights;
    const uint32_t *limit; /* NULL: sums are kept */
    const uint32_t *flip;  /* NULL: no bit is flipped */
    uint8_t planes;        /* that hold 2 * kernel_h * kernel_w; at most BNN_LANE_PLANES */
    uint8_t relu;
} bnn_conv_lanes_t;

#define BNN_LANE_PLANES 9

/* As bnn_output_t with thresholds, for values that are there already. */
typedef struct bnn_threshold {
    uint32_t positions;
    uint16_t channels;
    const int32_t *threshold;
    const uint32_t *flip; /* NULL: no bit is flipped */
} bnn_threshold_t;

/* floor((m * x + add) / 2^shift) with m = mul where x >= 0, else neg. */
typedef struct bnn_affine {
    uint32_t positions;
    uint16_t channels;
    uint8_t shift;
    const int32_t *mul;
    const int32_t *neg; /* NULL: mul everywhere */
    const int64_t *add;
} bnn_affine_t;

/* min(max(x, low), high). */
typedef struct bnn_clamp {
    uint32_t count;
    int32_t low, high;
} bnn_clamp_t;

/* in_c = out_c, groups is not read; minimum has a bit for each channel. */
typedef struct bnn_pool {
    bnn_shape_t shape;
    const uint32_t *minimum; /* channels whose smallest value is kept; NULL: none */
} bnn_pool_t;

/* int16 weights [outputs][positions][channels]; two words a logit. */
typedef struct bnn_dense {
    uint32_t positions;
    uint16_t channels;
    uint16_t outputs;
    const int16_t *weights;
    const int64_t *bias; /* [outputs]; NULL: none */
} bnn_dense_t;

/* On pixels.  scratch: the bytes of one window of one group, in whole words. */
void bnn_conv_pixels(const bnn_conv_integer_t *conv, const uint8_t *in, uint32_t *scratch,
                     uint32_t *out);

/* On integers.  scratch: the values of one window of one group. */
void bnn_conv_ints(const bnn_conv_integer_t *conv, const uint32_t *in, uint32_t *scratch,
                   uint32_t *out);

/* int16 weights on signs.  scratch: a byte a value of one window of one group, in whole words. */
void bnn_conv_signs(const bnn_conv_integer_t *conv, const uint32_t *in, uint32_t *scratch,
                    uint32_t *out);

/* scratch: the words of one window of one group. */
void bnn_conv_bits(const bnn_conv_bits_t *conv, const uint32_t *in, uint32_t *scratch,
                   uint32_t *out);

/* scratch: the words of one window for each output position, and one more for the draws. */
void bnn_conv_drawn(const bnn_conv_bits_t *conv, const uint32_t *in, uint32_t *scratch,
                    uint32_t *out, bnn_rng_t *rng, bnn_draw_t draw, unsigned planes);

void bnn_conv_lanes(const bnn_conv_lanes_t *conv, const uint32_t *in, uint32_t *out);

void bnn_threshold_pixels(const bnn_threshold_t *threshold, const uint8_t *in, uint32_t *out);
void bnn_threshold_ints(const bnn_threshold_t *threshold, const uint32_t *in, uint32_t *out);

/* Of integers: out may be in. */
void bnn_affine_pixels(const bnn_affine_t *affine, const uint8_t *in, uint32_t *out);
void bnn_affine_ints(const bnn_affine_t *affine, const uint32_t *in, uint32_t *out);
void bnn_affine_bits(const bnn_affine_t *affine, const uint32_t *in, uint32_t *out);

/* out may be in, or other. */
void bnn_clamp(const bnn_clamp_t *clamp, const uint32_t *in, uint32_t *out);
void bnn_add(uint32_t count, const uint32_t *in, const uint32_t *other, uint32_t *out);

/* Every window must have a tap inside the input. */
void bnn_max_pool_pixels(const bnn_pool_t *pool, const uint8_t *in, uint32_t *out);
void bnn_max_pool_ints(const bnn_pool_t *pool, const uint32_t *in, uint32_t *out);
void bnn_max_pool_bits(const bnn_pool_t *pool, const uint32_t *in, uint32_t *out);

/* Bits count as +1 and -1. */
void bnn_sum_pool_pixels(const bnn_pool_t *pool, const uint8_t *in, uint32_t *out);
void bnn_sum_pool_ints(const bnn_pool_t *pool, const uint32_t *in, uint32_t *out);
void bnn_sum_pool_bits(const bnn_pool_t *pool, const uint32_t *in, uint32_t *out);

/* 32-bit sums: only where the range analysis has shown that they suffice. */
void bnn_dense_i32(const bnn_dense_t *dense, const uint32_t *in, uint32_t *logits);
void bnn_dense_i64(const bnn_dense_t *dense, const uint32_t *in, uint32_t *logits);
void bnn_dense_pixels(const bnn_dense_t *dense, const uint8_t *in, uint32_t *logits);
void bnn_dense_bits(const bnn_dense_t *dense, const uint32_t *in, uint32_t *logits);

/* Integers as logits, for networks that do not end in a dense layer. */
void bnn_logits(uint32_t count, const uint32_t *in, uint32_t *logits);

#ifdef __cplusplus
}
#endif

#endif
