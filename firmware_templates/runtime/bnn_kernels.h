/*
 * What a generated model is made of.  Bits are packed 32 channels to a word,
 * channel c of a position in word c / 32, bit c % 32; unused bits are zero.
 */
#ifndef BNN_KERNELS_H
#define BNN_KERNELS_H

#include "bnn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where a window of a convolution lies; padding is what lies above and to the left. */
typedef struct bnn_shape {
    uint16_t in_h, in_w, in_c;
    uint16_t out_h, out_w, out_c;
    uint16_t kernel_h, kernel_w;
    uint16_t stride_y, stride_x;
    uint16_t pad_y, pad_x;
} bnn_shape_t;

/*
 * What becomes of a sum.  With thresholds, bit c = (sum >= threshold[c]) XOR
 * bit c of flip, which expresses <=, always and never too.  Without, the sum
 * itself is kept, or its positive part.
 */
typedef struct bnn_output {
    const int32_t *threshold;
    const uint32_t *flip;
    uint8_t relu;
} bnn_output_t;

/* First layer: int16 weights [out_c][kernel_h][kernel_w][in_c] on pixels. */
typedef struct bnn_conv_pixels {
    bnn_shape_t shape;
    const int16_t *weights;
    bnn_output_t output;
} bnn_conv_pixels_t;

/*
 * Binary layer on bits.  Fixed weights are packed words
 * [out_c][kernel_h][kernel_w][words]; drawn ones have k planes for each word.
 */
typedef struct bnn_conv_bits {
    bnn_shape_t shape;
    const uint32_t *weights;
    bnn_output_t output;
} bnn_conv_bits_t;

/* int16 weights [outputs][inputs] on int32 values; two words a logit. */
typedef struct bnn_dense {
    uint32_t inputs;
    uint16_t outputs;
    const int16_t *weights;
} bnn_dense_t;

/* scratch: kernel_h * kernel_w * in_c bytes. */
void bnn_conv_pixels(const bnn_conv_pixels_t *conv, const uint8_t *image, uint8_t *scratch,
                     uint32_t *out);

/* scratch: the words of one window. */
void bnn_conv_bits(const bnn_conv_bits_t *conv, const uint32_t *in, uint32_t *scratch,
                   uint32_t *out);

/* scratch: the words of one window for each output position, and one more for the draws. */
void bnn_conv_drawn(const bnn_conv_bits_t *conv, const uint32_t *in, uint32_t *scratch,
                    uint32_t *out, bnn_rng_t *rng, bnn_draw_t draw, unsigned planes);

/* 32-bit sums: only where the range analysis has shown that they suffice. */
void bnn_dense_i32(const bnn_dense_t *dense, const uint32_t *in, uint32_t *logits);
void bnn_dense_i64(const bnn_dense_t *dense, const uint32_t *in, uint32_t *logits);

#ifdef __cplusplus
}
#endif

#endif
