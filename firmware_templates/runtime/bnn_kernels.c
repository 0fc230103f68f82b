#include "bnn_kernels.h"

static uint32_t bnn_words(uint32_t channels)
{
    return (channels + 31u) / 32u;
}

static uint32_t bnn_popcount(uint32_t v)
{
    v -= (v >> 1) & 0x55555555u;
    v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
    v = (v + (v >> 4)) & 0x0F0F0F0Fu;
    return (v * 0x01010101u) >> 24;
}

/* Full adder on 32 lanes: *sum gets a + b + *sum, the carry is returned. */
static inline uint32_t bnn_carry_save(uint32_t *sum, uint32_t a, uint32_t b)
{
    const uint32_t partial = *sum ^ a;
    const uint32_t carry = (*sum & a) | (partial & b);
    *sum = partial ^ b;
    return carry;
}

/* The sums of eight words' bits go to ones, twos and fours; the carry, worth eight, is returned. */
static inline uint32_t bnn_eight(const uint32_t *a, const uint32_t *w, uint32_t *ones,
                                 uint32_t *twos, uint32_t *fours)
{
    uint32_t t0 = bnn_carry_save(ones, a[0] ^ w[0], a[1] ^ w[1]);
    uint32_t t1 = bnn_carry_save(ones, a[2] ^ w[2], a[3] ^ w[3]);
    const uint32_t f0 = bnn_carry_save(twos, t0, t1);
    t0 = bnn_carry_save(ones, a[4] ^ w[4], a[5] ^ w[5]);
    t1 = bnn_carry_save(ones, a[6] ^ w[6], a[7] ^ w[7]);
    const uint32_t f1 = bnn_carry_save(twos, t0, t1);
    return bnn_carry_save(fours, f0, f1);
}

/*
 * Bits that differ in n words: Harley-Seal carry-save counting, so that only
 * one population count is paid for sixteen words.
 */
static uint32_t bnn_mismatches(const uint32_t *a, const uint32_t *w, uint32_t n)
{
    uint32_t ones = 0, twos = 0, fours = 0, eights = 0, total = 0;

    for (; n >= 16; n -= 16, a += 16, w += 16) {
        const uint32_t e0 = bnn_eight(a, w, &ones, &twos, &fours);
        const uint32_t e1 = bnn_eight(a + 8, w + 8, &ones, &twos, &fours);
        total += bnn_popcount(bnn_carry_save(&eights, e0, e1));
    }
    total *= 2;
    if (n >= 8) {
        total += bnn_popcount(bnn_eight(a, w, &ones, &twos, &fours));
        n -= 8;
        a += 8;
        w += 8;
    }
    total = 8 * (total + bnn_popcount(eights)) + 4 * bnn_popcount(fours) +
            2 * bnn_popcount(twos) + bnn_popcount(ones);
    for (; n > 0; n--) {
        total += bnn_popcount(*a++ ^ *w++);
    }
    return total;
}

/* The part of a window's rows (or columns) that lies inside the input: first <= i < last. */
typedef struct bnn_span {
    uint32_t first, last;
} bnn_span_t;

static bnn_span_t bnn_inside(uint32_t start, uint32_t pad, uint32_t kernel, uint32_t size)
{
    bnn_span_t span;
    span.first = start < pad ? pad - start : 0;
    span.last = size + pad - start < kernel ? size + pad - start : kernel;
    return span;
}

/*
 * Copies one window of packed bits; what lies in the padding becomes zero
 * words.  Returns the number of taps inside the input, in bits.
 */
static int32_t bnn_gather(const bnn_shape_t *s, const uint32_t *in, uint32_t oy, uint32_t ox,
                          uint32_t *window)
{
    const uint32_t words = bnn_words(s->in_c);
    const bnn_span_t rows = bnn_inside(oy * s->stride_y, s->pad_y, s->kernel_h, s->in_h);
    const bnn_span_t cols = bnn_inside(ox * s->stride_x, s->pad_x, s->kernel_w, s->in_w);

    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        const int inside = ky >= rows.first && ky < rows.last;
        for (uint32_t kx = 0; kx < s->kernel_w; kx++) {
            if (inside && kx >= cols.first && kx < cols.last) {
                const uint32_t y = oy * s->stride_y + ky - s->pad_y;
                const uint32_t x = ox * s->stride_x + kx - s->pad_x;
                const uint32_t *from = in + ((size_t)y * s->in_w + x) * words;
                for (uint32_t i = 0; i < words; i++) {
                    *window++ = from[i];
                }
            } else {
                for (uint32_t i = 0; i < words; i++) {
                    *window++ = 0;
                }
            }
        }
    }
    return (int32_t)((rows.last - rows.first) * (cols.last - cols.first) * s->in_c);
}

/*
 * A zero word in the padding mismatches every set weight bit there.  Padding
 * stands for nothing at all, so these are counted to be taken off again.
 */
static uint32_t bnn_padding_mismatches(const bnn_shape_t *s, const uint32_t *w, uint32_t oy,
                                       uint32_t ox)
{
    const uint32_t words = bnn_words(s->in_c);
    const bnn_span_t rows = bnn_inside(oy * s->stride_y, s->pad_y, s->kernel_h, s->in_h);
    const bnn_span_t cols = bnn_inside(ox * s->stride_x, s->pad_x, s->kernel_w, s->in_w);
    uint32_t total = 0;

    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        const int inside = ky >= rows.first && ky < rows.last;
        for (uint32_t kx = 0; kx < s->kernel_w; kx++, w += words) {
            if (!(inside && kx >= cols.first && kx < cols.last)) {
                for (uint32_t i = 0; i < words; i++) {
                    total += bnn_popcount(w[i]);
                }
            }
        }
    }
    return total;
}

/* n - 2 m over the taps inside the input. */
static int32_t bnn_binary_sum(const bnn_shape_t *s, const uint32_t *window, const uint32_t *w,
                              uint32_t words, int32_t taps, uint32_t oy, uint32_t ox)
{
    uint32_t mismatches = bnn_mismatches(window, w, words);

    if (taps != (int32_t)((uint32_t)s->kernel_h * s->kernel_w * s->in_c)) {
        mismatches -= bnn_padding_mismatches(s, w, oy, ox);
    }
    return taps - 2 * (int32_t)mismatches;
}

/* Stores the sum of one channel at one position; bit words must start out as zero. */
static void bnn_store(const bnn_output_t *output, const bnn_shape_t *s, uint32_t *out,
                      uint32_t position, uint32_t channel, int32_t sum)
{
    if (output->threshold != NULL) {
        const uint32_t bit = (uint32_t)(sum >= output->threshold[channel]) << (channel % 32u);
        out[position * bnn_words(s->out_c) + channel / 32u] |= bit;
    } else {
        const int32_t kept = output->relu && sum < 0 ? 0 : sum;
        out[position * s->out_c + channel] = (uint32_t)kept;
    }
}

static void bnn_clear(const bnn_output_t *output, const bnn_shape_t *s, uint32_t *out)
{
    if (output->threshold != NULL) {
        const uint32_t count = (uint32_t)s->out_h * s->out_w * bnn_words(s->out_c);
        for (uint32_t i = 0; i < count; i++) {
            out[i] = 0;
        }
    }
}

/* Turns "sum >= threshold" into the direction that each channel wants. */
static void bnn_flip(const bnn_output_t *output, const bnn_shape_t *s, uint32_t *out)
{
    if (output->threshold != NULL) {
        const uint32_t words = bnn_words(s->out_c);
        for (uint32_t position = 0; position < (uint32_t)s->out_h * s->out_w; position++) {
            for (uint32_t i = 0; i < words; i++) {
                *out++ ^= output->flip[i];
            }
        }
    }
}

/*
 * Dot product of weights and pixels.  Eight taps a turn, as the loop itself
 * costs as much as a tap.
 */
static int32_t bnn_dot_pixels(const int16_t *w, const uint8_t *pixels, uint32_t taps)
{
    int32_t sum = 0;

    for (; taps >= 8; taps -= 8, w += 8, pixels += 8) {
        sum += (int32_t)w[0] * pixels[0] + (int32_t)w[1] * pixels[1];
        sum += (int32_t)w[2] * pixels[2] + (int32_t)w[3] * pixels[3];
        sum += (int32_t)w[4] * pixels[4] + (int32_t)w[5] * pixels[5];
        sum += (int32_t)w[6] * pixels[6] + (int32_t)w[7] * pixels[7];
    }
    for (; taps > 0; taps--) {
        sum += (int32_t)*w++ * *pixels++;
    }
    return sum;
}

void bnn_conv_pixels(const bnn_conv_pixels_t *conv, const uint8_t *image, uint8_t *scratch,
                     uint32_t *out)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t taps = (uint32_t)s->kernel_h * s->kernel_w * s->in_c;
    uint32_t position = 0;

    bnn_clear(&conv->output, s, out);
    for (uint32_t oy = 0; oy < s->out_h; oy++) {
        const bnn_span_t rows = bnn_inside(oy * s->stride_y, s->pad_y, s->kernel_h, s->in_h);
        for (uint32_t ox = 0; ox < s->out_w; ox++, position++) {
            const bnn_span_t cols = bnn_inside(ox * s->stride_x, s->pad_x, s->kernel_w, s->in_w);
            uint8_t *pixel = scratch;
            for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
                const int inside = ky >= rows.first && ky < rows.last;
                for (uint32_t kx = 0; kx < s->kernel_w; kx++) {
                    const int there = inside && kx >= cols.first && kx < cols.last;
                    const uint32_t y = oy * s->stride_y + ky - s->pad_y;
                    const uint32_t x = ox * s->stride_x + kx - s->pad_x;
                    for (uint32_t c = 0; c < s->in_c; c++) {
                        *pixel++ = there ? image[((size_t)y * s->in_w + x) * s->in_c + c] : 0;
                    }
                }
            }
            const int16_t *w = conv->weights;
            for (uint32_t channel = 0; channel < s->out_c; channel++, w += taps) {
                const int32_t sum = bnn_dot_pixels(w, scratch, taps);
                bnn_store(&conv->output, s, out, position, channel, sum);
            }
        }
    }
    bnn_flip(&conv->output, s, out);
}

void bnn_conv_bits(const bnn_conv_bits_t *conv, const uint32_t *in, uint32_t *scratch,
                   uint32_t *out)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t words = (uint32_t)s->kernel_h * s->kernel_w * bnn_words(s->in_c);
    uint32_t position = 0;

    bnn_clear(&conv->output, s, out);
    for (uint32_t oy = 0; oy < s->out_h; oy++) {
        for (uint32_t ox = 0; ox < s->out_w; ox++, position++) {
            const int32_t taps = bnn_gather(s, in, oy, ox, scratch);
            const uint32_t *w = conv->weights;
            for (uint32_t channel = 0; channel < s->out_c; channel++, w += words) {
                const int32_t sum = bnn_binary_sum(s, scratch, w, words, taps, oy, ox);
                bnn_store(&conv->output, s, out, position, channel, sum);
            }
        }
    }
    bnn_flip(&conv->output, s, out);
}

void bnn_conv_drawn(const bnn_conv_bits_t *conv, const uint32_t *in, uint32_t *scratch,
                    uint32_t *out, bnn_rng_t *rng, bnn_draw_t draw, unsigned planes)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t words = (uint32_t)s->kernel_h * s->kernel_w * bnn_words(s->in_c);
    uint32_t *const drawn = scratch;
    uint32_t *const windows = scratch + words;
    const uint32_t *weights = conv->weights;

    /* Filters are the outer loop, as each is drawn once and met by every position. */
    bnn_clear(&conv->output, s, out);
    uint32_t position = 0;
    for (uint32_t oy = 0; oy < s->out_h; oy++) {
        for (uint32_t ox = 0; ox < s->out_w; ox++, position++) {
            (void)bnn_gather(s, in, oy, ox, windows + (size_t)position * words);
        }
    }
    for (uint32_t channel = 0; channel < s->out_c; channel++) {
        draw(rng, weights, planes, drawn, words);
        weights += (size_t)words * planes;
        position = 0;
        for (uint32_t oy = 0; oy < s->out_h; oy++) {
            const bnn_span_t rows = bnn_inside(oy * s->stride_y, s->pad_y, s->kernel_h, s->in_h);
            for (uint32_t ox = 0; ox < s->out_w; ox++, position++) {
                const bnn_span_t cols =
                    bnn_inside(ox * s->stride_x, s->pad_x, s->kernel_w, s->in_w);
                const uint32_t taps =
                    (rows.last - rows.first) * (cols.last - cols.first) * s->in_c;
                const uint32_t *window = windows + (size_t)position * words;
                const int32_t sum =
                    bnn_binary_sum(s, window, drawn, words, (int32_t)taps, oy, ox);
                bnn_store(&conv->output, s, out, position, channel, sum);
            }
        }
    }
    bnn_flip(&conv->output, s, out);
}

static void bnn_store_logit(uint32_t *logits, uint32_t index, int64_t value)
{
    logits[2 * index] = (uint32_t)value;
    logits[2 * index + 1] = (uint32_t)((uint64_t)value >> 32);
}

void bnn_dense_i32(const bnn_dense_t *dense, const uint32_t *in, uint32_t *logits)
{
    const int16_t *w = dense->weights;

    for (uint32_t o = 0; o < dense->outputs; o++, w += dense->inputs) {
        int32_t sum = 0;
        for (uint32_t i = 0; i < dense->inputs; i++) {
            sum += w[i] * (int32_t)in[i];
        }
        bnn_store_logit(logits, o, sum);
    }
}

void bnn_dense_i64(const bnn_dense_t *dense, const uint32_t *in, uint32_t *logits)
{
    const int16_t *w = dense->weights;

    for (uint32_t o = 0; o < dense->outputs; o++, w += dense->inputs) {
        int64_t sum = 0;
        for (uint32_t i = 0; i < dense->inputs; i++) {
            sum += (int64_t)w[i] * (int32_t)in[i];
        }
        bnn_store_logit(logits, o, sum);
    }
}
