/* Layers with int16 weights: convolutions on pixels, integers and signs, and dense layers. */
#include "bnn_internal.h"

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

static int32_t bnn_dot_ints(const int16_t *w, const uint32_t *words, uint32_t taps)
{
    const int32_t *values = bnn_ints(words);
    int32_t sum = 0;

    for (uint32_t i = 0; i < taps; i++) {
        sum += w[i] * values[i];
    }
    return sum;
}

static int32_t bnn_dot_signs(const int16_t *w, const int8_t *signs, uint32_t taps)
{
    int32_t sum = 0;

    for (uint32_t i = 0; i < taps; i++) {
        sum += (int32_t)w[i] * signs[i];
    }
    return sum;
}

/* One window of the channels from first on; what lies in the padding is filled. */
static void bnn_gather_pixels(const bnn_conv_integer_t *conv, const uint8_t *in, uint32_t oy,
                              uint32_t ox, uint32_t first, uint32_t inputs, uint8_t *window)
{
    const bnn_shape_t *s = &conv->shape;
    const bnn_window_t at = bnn_window(s, oy, ox);

    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < s->kernel_w; kx++, window += inputs) {
            const uint8_t *from = conv->fill != NULL ? conv->fill + first : NULL;
            if (bnn_is_inside(&at, ky, kx)) {
                from = in + bnn_position(s, &at, ky, kx) * s->in_c + first;
            }
            for (uint32_t c = 0; c < inputs; c++) {
                window[c] = from != NULL ? from[c] : 0;
            }
        }
    }
}

static void bnn_gather_ints(const bnn_shape_t *s, const uint32_t *in, uint32_t oy, uint32_t ox,
                            uint32_t first, uint32_t inputs, uint32_t *window)
{
    const bnn_window_t at = bnn_window(s, oy, ox);

    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < s->kernel_w; kx++, window += inputs) {
            const int there = bnn_is_inside(&at, ky, kx);
            const size_t from = there ? bnn_position(s, &at, ky, kx) * s->in_c + first : 0;
            for (uint32_t c = 0; c < inputs; c++) {
                window[c] = there ? in[from + c] : 0;
            }
        }
    }
}

static void bnn_gather_signs(const bnn_shape_t *s, const uint32_t *in, uint32_t oy, uint32_t ox,
                             uint32_t first, uint32_t inputs, int8_t *window)
{
    const uint32_t words = bnn_words(s->in_c);
    const bnn_window_t at = bnn_window(s, oy, ox);

    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < s->kernel_w; kx++, window += inputs) {
            const int there = bnn_is_inside(&at, ky, kx);
            const size_t from = there ? bnn_position(s, &at, ky, kx) * words : 0;
            for (uint32_t c = 0; c < inputs; c++) {
                const int sign = 2 * (int)bnn_bit(in + from, first + c) - 1;
                window[c] = (int8_t)(there ? sign : 0);
            }
        }
    }
}

/*
 * A convolution but for the kind of its input: GATHER copies one window of the
 * channels from first on, DOT multiplies it with the weights w.
 */
#define BNN_CONV_INTEGER(GATHER, DOT)                                                              \
    const bnn_shape_t *s = &conv->shape;                                                           \
    const uint32_t inputs = (uint32_t)s->in_c / s->groups;                                         \
    const uint32_t filters = (uint32_t)s->out_c / s->groups;                                       \
    const uint32_t taps = (uint32_t)s->kernel_h * s->kernel_w * inputs;                            \
    uint32_t position = 0;                                                                         \
                                                                                                   \
    bnn_clear(&conv->output, s, out);                                                              \
    for (uint32_t oy = 0; oy < s->out_h; oy++) {                                                   \
        for (uint32_t ox = 0; ox < s->out_w; ox++, position++) {                                   \
            const int16_t *w = conv->weights;                                                      \
            uint32_t channel = 0;                                                                  \
            for (uint32_t first = 0; first < s->in_c; first += inputs) {                           \
                GATHER;                                                                            \
                for (uint32_t filter = 0; filter < filters; filter++, channel++, w += taps) {      \
                    bnn_store(&conv->output, s, out, position, channel, DOT);                      \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    bnn_flip(&conv->output, s, out)

#if UINTPTR_MAX > 0xFFFFFFFFu && !defined(BNN_PORTABLE)
/*
 * For hosts: compilers make vectors of loops over int16, of which two products
 * are one instruction, and a word of bits is stored at once.
 */
#define BNN_WIDE_TAPS 1024u

/* bnn_gather_pixels of all channels, with neighbours side by side. */
static void bnn_gather_wide(const bnn_conv_integer_t *conv, const uint8_t *in, uint32_t oy,
                            uint32_t ox, int16_t *window)
{
    const bnn_shape_t *s = &conv->shape;
    const bnn_window_t at = bnn_window(s, oy, ox);
    const uint32_t channels = s->in_c, values = s->kernel_w * channels;
    const uint32_t first = at.cols.first * channels, last = at.cols.last * channels;

    for (uint32_t ky = 0; ky < s->kernel_h; ky++, window += values) {
        const int inside = ky >= at.rows.first && ky < at.rows.last;
        if (!inside || first != 0 || last != values) {
            for (uint32_t i = 0; i < values; i++) {
                window[i] = conv->fill != NULL ? conv->fill[i % channels] : 0;
            }
        }
        if (inside && first < last) {
            const uint8_t *from = in + bnn_position(s, &at, ky, at.cols.first) * channels;
            for (uint32_t i = 0; i < last - first; i++) {
                window[first + i] = from[i];
            }
        }
    }
}

static void bnn_conv_pixels_wide(const bnn_conv_integer_t *conv, const uint8_t *in, uint32_t *out)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t taps = (uint32_t)s->kernel_h * s->kernel_w * s->in_c;
    const uint32_t positions = (uint32_t)s->out_h * s->out_w;
    const int32_t *const threshold = conv->output.threshold;
    int16_t window[BNN_WIDE_TAPS];
    int32_t sums[32];

    for (uint32_t position = 0; position < positions; position++) {
        const int16_t *w = conv->weights;
        bnn_gather_wide(conv, in, position / s->out_w, position % s->out_w, window);
        for (uint32_t first = 0; first < s->out_c; first += 32u) {
            const uint32_t left = s->out_c - first, filters = left < 32u ? left : 32u;
            for (uint32_t filter = 0; filter < filters; filter++, w += taps) {
                int32_t sum = 0;
                for (uint32_t i = 0; i < taps; i++) {
                    sum += (int32_t)w[i] * window[i];
                }
                sums[filter] = sum;
            }
            uint32_t bits = 0;
            for (uint32_t filter = 0; filter < filters; filter++) {
                if (threshold != NULL) {
                    bits |= (uint32_t)(sums[filter] >= threshold[first + filter]) << filter;
                } else {
                    *out++ = conv->output.relu && sums[filter] < 0 ? 0 : (uint32_t)sums[filter];
                }
            }
            if (threshold != NULL) {
                *out++ = bits;
            }
        }
    }
}
#endif

void bnn_conv_pixels(const bnn_conv_integer_t *conv, const uint8_t *in, uint32_t *scratch,
                     uint32_t *out)
{
    uint8_t *const window = (uint8_t *)scratch;

#if defined(BNN_WIDE_TAPS)
    const bnn_shape_t *wide = &conv->shape;
    if (wide->groups == 1 && wide->dilation_x == 1 &&
        (uint32_t)wide->kernel_h * wide->kernel_w * wide->in_c <= BNN_WIDE_TAPS) {
        bnn_conv_pixels_wide(conv, in, out);
        bnn_flip(&conv->output, wide, out);
        return;
    }
#endif
    BNN_CONV_INTEGER(bnn_gather_pixels(conv, in, oy, ox, first, inputs, window),
                     bnn_dot_pixels(w, window, taps));
}

void bnn_conv_ints(const bnn_conv_integer_t *conv, const uint32_t *in, uint32_t *scratch,
                   uint32_t *out)
{
    BNN_CONV_INTEGER(bnn_gather_ints(s, in, oy, ox, first, inputs, scratch),
                     bnn_dot_ints(w, scratch, taps));
}

void bnn_conv_signs(const bnn_conv_integer_t *conv, const uint32_t *in, uint32_t *scratch,
                    uint32_t *out)
{
    int8_t *const window = (int8_t *)scratch;

    BNN_CONV_INTEGER(bnn_gather_signs(s, in, oy, ox, first, inputs, window),
                     bnn_dot_signs(w, window, taps));
}

static void bnn_store_logit(uint32_t *logits, uint32_t index, int64_t value)
{
    logits[2 * index] = (uint32_t)value;
    logits[2 * index + 1] = (uint32_t)((uint64_t)value >> 32);
}

static int64_t bnn_bias(const bnn_dense_t *dense, uint32_t output)
{
    return dense->bias != NULL ? dense->bias[output] : 0;
}

void bnn_dense_i32(const bnn_dense_t *dense, const uint32_t *in, uint32_t *logits)
{
    const uint32_t inputs = dense->positions * dense->channels;
    const int16_t *w = dense->weights;
    const int32_t *values = bnn_ints(in);

    for (uint32_t o = 0; o < dense->outputs; o++, w += inputs) {
        /* From the bias on, so that no partial sum leaves the bounds of the whole. */
        int32_t sum = (int32_t)bnn_bias(dense, o);
        for (uint32_t i = 0; i < inputs; i++) {
            sum += w[i] * values[i];
        }
        bnn_store_logit(logits, o, sum);
    }
}

void bnn_dense_i64(const bnn_dense_t *dense, const uint32_t *in, uint32_t *logits)
{
    const uint32_t inputs = dense->positions * dense->channels;
    const int16_t *w = dense->weights;
    const int32_t *values = bnn_ints(in);

    for (uint32_t o = 0; o < dense->outputs; o++, w += inputs) {
        int64_t sum = bnn_bias(dense, o);
        for (uint32_t i = 0; i < inputs; i++) {
            sum += bnn_product(w[i], values[i]);
        }
        bnn_store_logit(logits, o, sum);
    }
}

void bnn_dense_pixels(const bnn_dense_t *dense, const uint8_t *in, uint32_t *logits)
{
    const uint32_t inputs = dense->positions * dense->channels;
    const int16_t *w = dense->weights;

    for (uint32_t o = 0; o < dense->outputs; o++, w += inputs) {
        int64_t sum = bnn_bias(dense, o);
        for (uint32_t i = 0; i < inputs; i++) {
            sum += (int32_t)w[i] * in[i];
        }
        bnn_store_logit(logits, o, sum);
    }
}

void bnn_dense_bits(const bnn_dense_t *dense, const uint32_t *in, uint32_t *logits)
{
    const uint32_t words = bnn_words(dense->channels);
    const int16_t *w = dense->weights;

    for (uint32_t o = 0; o < dense->outputs; o++) {
        int64_t sum = bnn_bias(dense, o);
        const uint32_t *at = in;
        for (uint32_t position = 0; position < dense->positions; position++, at += words) {
            /* 65,535 weights of 16 bits are less than 2^31. */
            int32_t part = 0;
            for (uint32_t c = 0; c < dense->channels; c++, w++) {
                /* Without a branch: as many instructions for every input. */
                const int32_t minus = (int32_t)bnn_bit(at, c) - 1;
                part += (*w ^ minus) - minus;
            }
            sum += part;
        }
        bnn_store_logit(logits, o, sum);
    }
}

void bnn_logits(uint32_t count, const uint32_t *in, uint32_t *logits)
{
    for (uint32_t i = 0; i < count; i++) {
        bnn_store_logit(logits, i, bnn_ints(in)[i]);
    }
}
