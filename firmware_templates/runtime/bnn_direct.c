/* Convolutions of pixels, two products an instruction: six sums at a time. */
#include "bnn_first.h"

#include "bnn_internal.h"

/* Sums of three positions for two filters. */
typedef struct bnn_six {
    uint32_t a0, a1, a2, b0, b1, b2;
} bnn_six_t;

#if !(defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && defined(__GNUC__))
/* Two products added to a sum; sums are modulo 2^32. */
static inline uint32_t bnn_pair(uint32_t x, uint32_t w, uint32_t sum)
{
    const int32_t low = (int32_t)(int16_t)(uint16_t)x * (int16_t)(uint16_t)w;
    const int32_t high = (int32_t)(int16_t)(uint16_t)(x >> 16) * (int16_t)(uint16_t)(w >> 16);
    return sum + (uint32_t)low + (uint32_t)high;
}
#endif

/* Adds the products of pairs, an even number of them and not zero; returns the next weights. */
static inline const uint32_t *bnn_direct_six(const uint32_t *window, const uint32_t *weights,
                                             uint32_t pairs, bnn_six_t *six)
{
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && defined(__GNUC__)
#define BNN_DIRECT_STEP                                                                            \
    "ldmia r0!, {r10, r11, r12}\n\t"                                                               \
    "ldrd r2, lr, [r1], #8\n\t"                                                                    \
    "smlad r3, r10, r2, r3\n\t"                                                                    \
    "smlad r4, r11, r2, r4\n\t"                                                                    \
    "smlad r5, r12, r2, r5\n\t"                                                                    \
    "smlad r6, r10, lr, r6\n\t"                                                                    \
    "smlad r8, r11, lr, r8\n\t"                                                                    \
    "smlad r9, r12, lr, r9\n\t"
    register const uint32_t *r0 __asm__("r0") = window;
    register const uint32_t *r1 __asm__("r1") = weights;
    register const uint32_t *r2 __asm__("r2") = window + 3u * pairs;
    register uint32_t r3 __asm__("r3") = six->a0;
    register uint32_t r4 __asm__("r4") = six->a1;
    register uint32_t r5 __asm__("r5") = six->a2;
    register uint32_t r6 __asm__("r6") = six->b0;
    register uint32_t r8 __asm__("r8") = six->b1;
    register uint32_t r9 __asm__("r9") = six->b2;
    __asm__ volatile("push {r2}\n"
                     "1:\n\t" BNN_DIRECT_STEP BNN_DIRECT_STEP
                     "ldr r2, [sp]\n\t"
                     "cmp r0, r2\n\t"
                     "bne 1b\n\t"
                     "pop {r2}"
                     : "+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6),
                       "+r"(r8), "+r"(r9)
                     :
                     : "r10", "r11", "r12", "lr", "cc", "memory");
    *six = (bnn_six_t){r3, r4, r5, r6, r8, r9};
    return r1;
#else
    for (; pairs > 0; pairs--, window += 3, weights += 2) {
        six->a0 = bnn_pair(window[0], weights[0], six->a0);
        six->a1 = bnn_pair(window[1], weights[0], six->a1);
        six->a2 = bnn_pair(window[2], weights[0], six->a2);
        six->b0 = bnn_pair(window[0], weights[1], six->b0);
        six->b1 = bnn_pair(window[1], weights[1], six->b1);
        six->b2 = bnn_pair(window[2], weights[1], six->b2);
    }
    return weights;
#endif
}

/* One row of a window with taps in the padding: all its values one by one. */
static uint32_t *bnn_direct_edge(const bnn_first_t *first, const uint8_t *row, uint32_t x,
                                 uint32_t *to)
{
    const bnn_shape_t *s = &first->shape;
    const uint32_t values = (uint32_t)s->kernel_w * s->in_c;
    uint32_t pair = 0, channel = 0;

    for (uint32_t i = 0; i < values; i++) {
        uint32_t pixel = first->fill != NULL ? first->fill[channel] : 0;
        if (row != NULL && x < s->in_w) {
            pixel = row[(size_t)x * s->in_c + channel];
        }
        pair |= pixel << (i % 2u * 16u);
        if (i % 2u != 0 || i + 1u == values) {
            *to = pair;
            to += BNN_DIRECT_POSITIONS;
            pair = 0;
        }
        channel++;
        if (channel == s->in_c) {
            channel = 0;
            x += s->dilation_x;
        }
    }
    return to;
}

/* One window in pairs of values, three words from each to the next. */
static void bnn_direct_gather(const bnn_first_t *first, const uint8_t *in, uint32_t oy, uint32_t ox,
                              uint32_t *to)
{
    const bnn_shape_t *s = &first->shape;
    const bnn_window_t at = bnn_window(s, oy, ox);
    const uint32_t values = (uint32_t)s->kernel_w * s->in_c;
    const int whole = s->dilation_x == 1 && at.cols.first == 0 && at.cols.last == s->kernel_w;

    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        const int inside = ky >= at.rows.first && ky < at.rows.last;
        const uint32_t y = at.y + ky * s->dilation_y;
        const uint8_t *const row = inside ? in + (size_t)y * s->in_w * s->in_c : NULL;
        if (!whole || !inside) {
            to = bnn_direct_edge(first, row, at.x, to);
            continue;
        }
        const uint8_t *from = row + (size_t)at.x * s->in_c;
        uint32_t left = values;
        for (; left >= 4u; left -= 4u, from += 4, to += 2u * BNN_DIRECT_POSITIONS) {
            to[0] = from[0] | (uint32_t)from[1] << 16;
            to[BNN_DIRECT_POSITIONS] = from[2] | (uint32_t)from[3] << 16;
        }
        for (; left >= 2u; left -= 2u, from += 2, to += BNN_DIRECT_POSITIONS) {
            *to = from[0] | (uint32_t)from[1] << 16;
        }
        if (left != 0) {
            *to = from[0];
            to += BNN_DIRECT_POSITIONS;
        }
    }
}

/* What becomes of the sums of three positions. */
typedef struct bnn_three {
    uint32_t *out[BNN_DIRECT_POSITIONS]; /* the first of each position's results */
    uint32_t count;                      /* positions that exist */
    uint32_t pushed; /* never used: the loop pushes as much, which no compiler reports */
} bnn_three_t;

static void bnn_direct_bits(const bnn_first_t *first, const bnn_three_t *three,
                            const uint32_t *window, uint32_t pairs)
{
    const uint32_t filters = first->shape.out_c;
    const uint32_t *weights = first->weights;
    uint32_t bits[BNN_DIRECT_POSITIONS] = {0, 0, 0};

    for (uint32_t filter = 0; filter < filters; filter += 2u) {
        const int pair = filter + 1u < filters;
        const uint32_t a = (uint32_t)first->bias[filter];
        const uint32_t b = pair ? (uint32_t)first->bias[filter + 1u] : 0;
        bnn_six_t six = {a, a, a, b, b, b};
        weights = bnn_direct_six(window, weights, pairs, &six);
        bits[0] = bits[0] >> 2 | (six.a0 >> 31) << 30 | (six.b0 >> 31) << 31;
        bits[1] = bits[1] >> 2 | (six.a1 >> 31) << 30 | (six.b1 >> 31) << 31;
        bits[2] = bits[2] >> 2 | (six.a2 >> 31) << 30 | (six.b2 >> 31) << 31;
        const uint32_t done = filter % 32u + 2u;
        if (done == 32u || filter + 2u >= filters) {
            const uint32_t lanes = 0xFFFFFFFFu >> (31u - (filter % 32u + (uint32_t)pair));
            for (uint32_t i = 0; i < three->count; i++) {
                const uint32_t word = bits[i] >> (32u - done) & lanes;
                three->out[i][filter / 32u] = word ^ first->flip[filter / 32u];
            }
        }
    }
}

static void bnn_direct_sums(const bnn_first_t *first, const bnn_three_t *three,
                            const uint32_t *window, uint32_t pairs)
{
    const uint32_t filters = first->shape.out_c;
    const uint32_t *weights = first->weights;

    for (uint32_t filter = 0; filter < filters; filter += 2u) {
        bnn_six_t six = {0, 0, 0, 0, 0, 0};
        weights = bnn_direct_six(window, weights, pairs, &six);
        const uint32_t sums[2][BNN_DIRECT_POSITIONS] = {{six.a0, six.a1, six.a2},
                                                        {six.b0, six.b1, six.b2}};
        for (uint32_t i = 0; i < three->count; i++) {
            for (uint32_t j = 0; j < 2u && filter + j < filters; j++) {
                const uint32_t sum = sums[j][i];
                const uint32_t negative = 0u - (sum >> 31);
                three->out[i][filter + j] = first->relu ? sum & ~negative : sum;
            }
        }
    }
}

void bnn_first_direct(const bnn_first_t *first, const uint8_t *in, uint32_t *scratch,
                      uint32_t *out)
{
    const bnn_shape_t *s = &first->shape;
    const uint32_t row = ((uint32_t)s->kernel_w * s->in_c + 1u) / 2u;
    const uint32_t used = row * s->kernel_h, pairs = used + used % 2u;
    const uint32_t words = first->bias != NULL ? bnn_words(s->out_c) : s->out_c;
    bnn_three_t three = {{out, out, out}, 0, 0};

    for (uint32_t i = 0; i < BNN_DIRECT_POSITIONS * pairs; i++) {
        scratch[i] = 0;
    }
    for (uint32_t oy = 0; oy < s->out_h; oy++) {
        for (uint32_t ox = 0; ox < s->out_w; ox++, out += words) {
            bnn_direct_gather(first, in, oy, ox, scratch + three.count);
            three.out[three.count++] = out;
            const int last = oy + 1u == s->out_h && ox + 1u == s->out_w;
            if (three.count < BNN_DIRECT_POSITIONS && !last) {
                continue;
            }
            if (first->bias != NULL) {
                bnn_direct_bits(first, &three, scratch, pairs);
            } else {
                bnn_direct_sums(first, &three, scratch, pairs);
            }
            three.count = 0;
        }
    }
}
