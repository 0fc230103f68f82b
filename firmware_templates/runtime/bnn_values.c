/* What is done to single values and to pools of them. */
#include "bnn_internal.h"

/* What a value is made of; always a constant, so that each kernel is compiled for its kind. */
typedef enum bnn_kind { BNN_PIXELS, BNN_INTS, BNN_BITS } bnn_kind_t;

/* One value as an integer: a pixel, an integer, or a bit's sign. */
static inline int32_t bnn_read(bnn_kind_t kind, const void *in, uint32_t channels, size_t position,
                               uint32_t channel)
{
    if (kind == BNN_BITS) {
        const uint32_t *words = (const uint32_t *)in + position * bnn_words(channels);
        return 2 * (int32_t)bnn_bit(words, channel) - 1;
    }
    const size_t index = position * channels + channel;
    return kind == BNN_PIXELS ? ((const uint8_t *)in)[index] : ((const int32_t *)in)[index];
}

static inline void bnn_compare(const bnn_threshold_t *t, bnn_kind_t kind, const void *in,
                               uint32_t *out)
{
    const uint32_t channels = t->channels;

    for (uint32_t position = 0; position < t->positions; position++) {
        for (uint32_t base = 0; base < channels; base += 32u) {
            const uint32_t lanes = channels - base < 32u ? channels - base : 32u;
            uint32_t word = 0;
            for (uint32_t lane = 0; lane < lanes; lane++) {
                const int32_t value = bnn_read(kind, in, channels, position, base + lane);
                word |= (1u ^ bnn_less(value, t->threshold[base + lane])) << lane;
            }
            *out++ = t->flip != NULL ? word ^ t->flip[base / 32u] : word;
        }
    }
}

void bnn_threshold_pixels(const bnn_threshold_t *threshold, const uint8_t *in, uint32_t *out)
{
    bnn_compare(threshold, BNN_PIXELS, in, out);
}

void bnn_threshold_ints(const bnn_threshold_t *threshold, const uint32_t *in, uint32_t *out)
{
    bnn_compare(threshold, BNN_INTS, in, out);
}

/*
 * The result fits 32 bits, and those are the same whether a negative number
 * is shifted arithmetically or, as here, as an unsigned one: shift is below 32.
 */
static inline void bnn_affine(const bnn_affine_t *affine, bnn_kind_t kind, const void *in,
                              uint32_t *out)
{
    const uint32_t channels = affine->channels;
    const int32_t *const neg = affine->neg != NULL ? affine->neg : affine->mul;

    for (uint32_t position = 0; position < affine->positions; position++) {
        for (uint32_t c = 0; c < channels; c++) {
            const int32_t x = bnn_read(kind, in, channels, position, c);
            /* Both are read, so that the address does not tell the sign. */
            const uint32_t below = (uint32_t)neg[c], above = (uint32_t)affine->mul[c];
            const int32_t m = (int32_t)bnn_select(bnn_negative(x), below, above);
            const int64_t y = bnn_product(m, x) + affine->add[c];
            *out++ = (uint32_t)((uint64_t)y >> affine->shift);
        }
    }
}

void bnn_affine_pixels(const bnn_affine_t *affine, const uint8_t *in, uint32_t *out)
{
    bnn_affine(affine, BNN_PIXELS, in, out);
}

void bnn_affine_ints(const bnn_affine_t *affine, const uint32_t *in, uint32_t *out)
{
    bnn_affine(affine, BNN_INTS, in, out);
}

void bnn_affine_bits(const bnn_affine_t *affine, const uint32_t *in, uint32_t *out)
{
    bnn_affine(affine, BNN_BITS, in, out);
}

void bnn_clamp(const bnn_clamp_t *clamp, const uint32_t *in, uint32_t *out)
{
    for (uint32_t i = 0; i < clamp->count; i++) {
        const int32_t raised = bnn_larger(bnn_ints(in)[i], clamp->low);
        const uint32_t above = 0u - bnn_less(clamp->high, raised);
        out[i] = bnn_select(above, (uint32_t)clamp->high, (uint32_t)raised);
    }
}

void bnn_add(uint32_t count, const uint32_t *in, const uint32_t *other, uint32_t *out)
{
    for (uint32_t i = 0; i < count; i++) {
        /* The sum fits int32: unsigned addition gives its bits. */
        out[i] = in[i] + other[i];
    }
}

static inline void bnn_max_pool(const bnn_pool_t *pool, bnn_kind_t kind, const void *in,
                                uint32_t *out)
{
    const bnn_shape_t *s = &pool->shape;
    size_t index = 0;

    for (uint32_t oy = 0; oy < s->out_h; oy++) {
        for (uint32_t ox = 0; ox < s->out_w; ox++) {
            const bnn_window_t at = bnn_window(s, oy, ox);
            for (uint32_t c = 0; c < s->in_c; c++) {
                /* The least one is the largest of the complements. */
                const uint32_t least = pool->minimum != NULL ? bnn_bit(pool->minimum, c) : 0;
                const int32_t turned = -(int32_t)least;
                int32_t best = INT32_MIN;
                for (uint32_t ky = at.rows.first; ky < at.rows.last; ky++) {
                    for (uint32_t kx = at.cols.first; kx < at.cols.last; kx++) {
                        const size_t from = bnn_position(s, &at, ky, kx);
                        const int32_t x = bnn_read(kind, in, s->in_c, from, c);
                        best = bnn_larger(best, x ^ turned);
                    }
                }
                best ^= turned;
                if (kind == BNN_PIXELS) {
                    ((uint8_t *)out)[index++] = (uint8_t)best;
                } else {
                    out[index++] = (uint32_t)best;
                }
            }
        }
    }
}

void bnn_max_pool_pixels(const bnn_pool_t *pool, const uint8_t *in, uint32_t *out)
{
    bnn_max_pool(pool, BNN_PIXELS, in, out);
}

void bnn_max_pool_ints(const bnn_pool_t *pool, const uint32_t *in, uint32_t *out)
{
    bnn_max_pool(pool, BNN_INTS, in, out);
}

/* The largest bit is the OR of all, the smallest the AND. */
void bnn_max_pool_bits(const bnn_pool_t *pool, const uint32_t *in, uint32_t *out)
{
    const bnn_shape_t *s = &pool->shape;
    const uint32_t words = bnn_words(s->in_c);

    for (uint32_t oy = 0; oy < s->out_h; oy++) {
        for (uint32_t ox = 0; ox < s->out_w; ox++) {
            const bnn_window_t at = bnn_window(s, oy, ox);
            for (uint32_t i = 0; i < words; i++) {
                uint32_t any = 0, all = 0xFFFFFFFFu;
                for (uint32_t ky = at.rows.first; ky < at.rows.last; ky++) {
                    for (uint32_t kx = at.cols.first; kx < at.cols.last; kx++) {
                        const uint32_t word = in[bnn_position(s, &at, ky, kx) * words + i];
                        any |= word;
                        all &= word;
                    }
                }
                const uint32_t least = pool->minimum != NULL ? pool->minimum[i] : 0;
                *out++ = (any & ~least) | (all & least);
            }
        }
    }
}

static inline void bnn_sum_pool(const bnn_pool_t *pool, bnn_kind_t kind, const void *in,
                                uint32_t *out)
{
    const bnn_shape_t *s = &pool->shape;

    for (uint32_t oy = 0; oy < s->out_h; oy++) {
        for (uint32_t ox = 0; ox < s->out_w; ox++) {
            const bnn_window_t at = bnn_window(s, oy, ox);
            for (uint32_t c = 0; c < s->in_c; c++) {
                int32_t sum = 0;
                for (uint32_t ky = at.rows.first; ky < at.rows.last; ky++) {
                    for (uint32_t kx = at.cols.first; kx < at.cols.last; kx++) {
                        const size_t from = bnn_position(s, &at, ky, kx);
                        sum += bnn_read(kind, in, s->in_c, from, c);
                    }
                }
                *out++ = (uint32_t)sum;
            }
        }
    }
}

void bnn_sum_pool_pixels(const bnn_pool_t *pool, const uint8_t *in, uint32_t *out)
{
    bnn_sum_pool(pool, BNN_PIXELS, in, out);
}

void bnn_sum_pool_ints(const bnn_pool_t *pool, const uint32_t *in, uint32_t *out)
{
    bnn_sum_pool(pool, BNN_INTS, in, out);
}

void bnn_sum_pool_bits(const bnn_pool_t *pool, const uint32_t *in, uint32_t *out)
{
    bnn_sum_pool(pool, BNN_BITS, in, out);
}
