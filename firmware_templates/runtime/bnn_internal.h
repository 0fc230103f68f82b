/*
 * What the kernels share: words of bits, windows, and where sums go.  Not part
 * of the interface.
 */
#ifndef BNN_INTERNAL_H
#define BNN_INTERNAL_H

#include "bnn_kernels.h"

static inline uint32_t bnn_words(uint32_t channels)
{
    return (channels + 31u) / 32u;
}

static inline uint32_t bnn_popcount(uint32_t v)
{
    v -= (v >> 1) & 0x55555555u;
    v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
    v = (v + (v >> 4)) & 0x0F0F0F0Fu;
    return (v * 0x01010101u) >> 24;
}

/*
 * Decisions on values are masks: no branch and no address may depend on an input.  A compiler
 * that sees what a mask is made of may turn it back into a branch; this hides it.
 */
static inline uint32_t bnn_opaque(uint32_t value)
{
#if defined(__GNUC__) && defined(__arm__)
    __asm__("" : "+r"(value));
#endif
    return value;
}

/* All ones if x is negative, else 0. */
static inline uint32_t bnn_negative(int32_t x)
{
    return bnn_opaque(0u - ((uint32_t)x >> 31));
}

/* 1 if a < b, else 0. */
static inline uint32_t bnn_less(int32_t a, int32_t b)
{
#if defined(__arm__) && !defined(__thumb2__)
    /* These cores could only branch: the sign of a - b, turned round where that overflows. */
    const uint32_t x = (uint32_t)a, y = (uint32_t)b, less = x - y;
    return bnn_opaque((less ^ ((x ^ y) & (less ^ x))) >> 31);
#else
    return bnn_opaque((uint32_t)(a < b));
#endif
}

/* a where the mask is set, b elsewhere. */
static inline uint32_t bnn_select(uint32_t mask, uint32_t a, uint32_t b)
{
    return b ^ ((a ^ b) & mask);
}

/* The larger one. */
static inline int32_t bnn_larger(int32_t a, int32_t b)
{
    return (int32_t)bnn_select(0u - bnn_less(a, b), (uint32_t)b, (uint32_t)a);
}

/* a * b. */
static inline int64_t bnn_product(int32_t a, int32_t b)
{
#if defined(__arm__) && !defined(__thumb2__)
    /* Compilers call a function here, which looks at the upper halves and may leave early. */
    const uint32_t x = (uint32_t)a, y = (uint32_t)b, x0 = x & 0xFFFFu, y0 = y & 0xFFFFu;
    const uint32_t low = x0 * y0, middle = (x >> 16) * y0 + (low >> 16);
    const uint32_t other = x0 * (y >> 16) + (middle & 0xFFFFu);
    uint32_t high = (x >> 16) * (y >> 16) + (middle >> 16) + (other >> 16);
    high -= (bnn_negative(a) & y) + (bnn_negative(b) & x);
    return (int64_t)((uint64_t)high << 32 | other << 16 | (low & 0xFFFFu));
#else
    return (int64_t)a * b;
#endif
}

/* x, or 0 for a negative one if relu is not 0. */
static inline uint32_t bnn_rectified(int32_t x, uint32_t relu)
{
    return relu != 0 ? (uint32_t)x & ~bnn_negative(x) : (uint32_t)x;
}

/* What the words of an integer value hold. */
static inline const int32_t *bnn_ints(const uint32_t *words)
{
    return (const int32_t *)words;
}

/* 1 or 0: the bit of a channel in the words of its position. */
static inline uint32_t bnn_bit(const uint32_t *words, uint32_t channel)
{
    return words[channel / 32u] >> (channel % 32u) & 1u;
}

/* The taps of a window's rows (or columns) that lie inside the input: first <= i < last. */
typedef struct bnn_span {
    uint32_t first, last;
} bnn_span_t;

/* start: of the window, counted from the outer edge of the padding. */
static inline bnn_span_t bnn_inside(uint32_t start, uint32_t pad, uint32_t kernel, uint32_t size,
                                    uint32_t dilation)
{
    bnn_span_t span;
    span.first = start < pad ? pad - start : 0;
    span.last = size + pad > start ? size + pad - start : 0;
    if (dilation != 1) {
        span.first = (span.first + dilation - 1) / dilation;
        span.last = (span.last + dilation - 1) / dilation;
    }
    if (span.last > kernel) {
        span.last = kernel;
    }
    if (span.first > span.last) {
        span.first = span.last;
    }
    return span;
}

/* One window: its taps inside the input, and the row and column of its first tap. */
typedef struct bnn_window {
    bnn_span_t rows, cols;
    uint32_t y, x; /* modulo 2^32, as it may lie in the padding */
} bnn_window_t;

static inline bnn_window_t bnn_window(const bnn_shape_t *s, uint32_t oy, uint32_t ox)
{
    bnn_window_t window;
    window.rows = bnn_inside(oy * s->stride_y, s->pad_y, s->kernel_h, s->in_h, s->dilation_y);
    window.cols = bnn_inside(ox * s->stride_x, s->pad_x, s->kernel_w, s->in_w, s->dilation_x);
    window.y = oy * s->stride_y - s->pad_y;
    window.x = ox * s->stride_x - s->pad_x;
    return window;
}

/* The input position of a tap that lies inside. */
static inline size_t bnn_position(const bnn_shape_t *s, const bnn_window_t *window, uint32_t ky,
                                  uint32_t kx)
{
    const uint32_t y = window->y + ky * s->dilation_y;
    const uint32_t x = window->x + kx * s->dilation_x;
    return (size_t)y * s->in_w + x;
}

static inline int bnn_is_inside(const bnn_window_t *window, uint32_t ky, uint32_t kx)
{
    return ky >= window->rows.first && ky < window->rows.last && kx >= window->cols.first &&
           kx < window->cols.last;
}

/* Taps inside the input. */
static inline uint32_t bnn_taps(const bnn_window_t *window)
{
    return (window->rows.last - window->rows.first) * (window->cols.last - window->cols.first);
}

/* Stores the sum of one channel at one position; bit words must start out as zero. */
static inline void bnn_store(const bnn_output_t *output, const bnn_shape_t *s, uint32_t *out,
                             uint32_t position, uint32_t channel, int32_t sum)
{
    if (output->threshold != NULL) {
        const uint32_t bit = (1u ^ bnn_less(sum, output->threshold[channel])) << (channel % 32u);
        out[position * bnn_words(s->out_c) + channel / 32u] |= bit;
    } else {
        out[position * s->out_c + channel] = bnn_rectified(sum, output->relu);
    }
}

static inline void bnn_clear(const bnn_output_t *output, const bnn_shape_t *s, uint32_t *out)
{
    if (output->threshold != NULL) {
        const uint32_t count = (uint32_t)s->out_h * s->out_w * bnn_words(s->out_c);
        for (uint32_t i = 0; i < count; i++) {
            out[i] = 0;
        }
    }
}

/* Turns "sum >= threshold" into the direction that each channel wants. */
static inline void bnn_flip(const bnn_output_t *output, const bnn_shape_t *s, uint32_t *out)
{
    if (output->flip != NULL) {
        const uint32_t words = bnn_words(s->out_c);
        for (uint32_t position = 0; position < (uint32_t)s->out_h * s->out_w; position++) {
            for (uint32_t i = 0; i < words; i++) {
                *out++ ^= output->flip[i];
            }
        }
    }
}

#endif
