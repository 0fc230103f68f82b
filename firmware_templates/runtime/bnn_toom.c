/* Convolutions of pixels by Toom and Cook, in tiles of 3 x 3 sums. */
#include "bnn_toom.h"

#include "bnn_internal.h"
#include "bnn_toom_tile.h"

#define BNN_POINTS BNN_TOOM_POINTS
#define BNN_SIDE BNN_TOOM_SIDE
#define BNN_FOUR 4u

#if defined(__thumb__) && !defined(BNN_PORTABLE)
#if defined(__thumb2__)
#include "bnn_toom_thumb2.h"
#else
#include "bnn_toom_thumb1.h"
#endif
#define BNN_TOOM_ASM 1

static void bnn_toom_bits(const bnn_tile_t *tile)
{
    if (tile->fours == 1u) {
        bnn_toom_bits_four(tile);
    } else {
        bnn_toom_bits_fours(tile);
    }
}
#endif

/* Six pixels, step apart, become their six numbers, which may take their place. */
static inline void bnn_toom_points(const uint32_t *from, uint32_t step, uint32_t *to,
                                   uint32_t to_step)
{
    const uint32_t d0 = from[0], d1 = from[step], d2 = from[2u * step], d3 = from[3u * step];
    const uint32_t d4 = from[4u * step], d5 = from[5u * step];
    const uint32_t a = d1 - d3, b = d2 - d4;

    *to = 2u * (d0 - d4) - 5u * a;
    to += to_step;
    *to = 3u * (d2 + d3) - 2u * (d1 + d4);
    to += to_step;
    *to = 7u * (d2 - d3) - 2u * (d1 - d4);
    to += to_step;
    *to = a - 2u * b;
    to += to_step;
    *to = 2u * a - b;
    to += to_step;
    *to = 2u * (d5 - d1) + 5u * b;
}

/* The numbers of a phase, whose pixels are overwritten. */
static void bnn_toom_phase(uint32_t *square, uint32_t *v, uint32_t words)
{
    for (uint32_t i = 0; i < BNN_POINTS; i++) {
        bnn_toom_points(square + BNN_POINTS * i, 1u, square + BNN_POINTS * i, 1u);
    }
    for (uint32_t j = 0; j < BNN_POINTS; j++, v += BNN_POINTS * words) {
        bnn_toom_points(square + j, BNN_POINTS, v, words);
    }
}

/* 6 x 6 pixels of a channel, a stride apart, from a place that may lie in the padding. */
static void bnn_toom_pixels(const bnn_first_t *first, const uint8_t *in, uint32_t channel,
                            uint32_t y, uint32_t x, uint32_t *square)
{
    const bnn_shape_t *s = &first->shape;
    const uint32_t fill = first->fill != NULL ? first->fill[channel] : 0;
    const uint32_t across = (uint32_t)s->stride_x * s->in_c, width = (uint32_t)s->in_w * s->in_c;

    for (uint32_t i = 0; i < BNN_POINTS; i++, y += s->stride_y) {
        const uint8_t *from = in + channel;
        uint32_t column = x;
        if (y < s->in_h && x < s->in_w && x + (BNN_POINTS - 1u) * s->stride_x < s->in_w) {
            from += y * width + x * s->in_c;
            for (uint32_t j = 0; j < BNN_POINTS; j++, from += across) {
                *square++ = *from;
            }
            continue;
        }
        for (uint32_t j = 0; j < BNN_POINTS; j++, column += s->stride_x) {
            const int inside = y < s->in_h && column < s->in_w;
            *square++ = inside ? from[y * width + column * s->in_c] : fill;
        }
    }
}

/* The numbers of the pixels that a tile's windows see. */
static void bnn_toom_inputs(const bnn_first_t *first, const uint8_t *in, uint32_t oy, uint32_t ox,
                            uint32_t *square, uint32_t *v, uint32_t words)
{
    const bnn_shape_t *s = &first->shape;
    const uint32_t y = oy * s->stride_y - s->pad_y, x = ox * s->stride_x - s->pad_x;

    for (uint32_t channel = 0; channel < s->in_c; channel++) {
        for (uint32_t i = 0; i < s->stride_y; i++) {
            for (uint32_t j = 0; j < s->stride_x; j++, v++) {
                bnn_toom_pixels(first, in, channel, y + i, x + j, square);
                bnn_toom_phase(square, v, words);
            }
        }
    }
}

#if !defined(BNN_TOOM_ASM)
/* Three sums from the products of six numbers, three apart. */
static inline void bnn_toom_three(uint32_t *to, const uint32_t *from)
{
    const uint32_t both = from[3] + from[6], two = from[9], half = from[12];

    to[0] = from[0] + both + two + 4u * half;
    to[1] = from[3] - from[6] + 2u * (two + half);
    to[2] = both + 4u * two + half + from[15];
}

/* The sums of one filter and tile, 4 times, with their bias; returns the next filter. */
static const uint32_t *bnn_toom_filter(const bnn_tile_t *tile, const uint32_t *w, uint32_t *sums)
{
    const uint32_t *v = tile->v;
    uint32_t part[BNN_SIDE * BNN_POINTS];

    for (uint32_t j = 0; j < BNN_SIDE * BNN_POINTS; j += BNN_SIDE) {
        uint32_t product[BNN_SIDE * BNN_POINTS];
        for (uint32_t i = 0; i < BNN_SIDE * BNN_POINTS; i += BNN_SIDE) {
            uint32_t sum = 0;
            for (uint32_t k = tile->fours; k > 0; k--, v += BNN_FOUR, w += BNN_FOUR) {
                sum += v[0] * w[0] + v[1] * w[1] + v[2] * w[2] + v[3] * w[3];
            }
            product[i] = sum;
        }
        bnn_toom_three(part + j, product);
    }
    /* What is added to the values at 1 is in every sum. */
    for (uint32_t i = 0; i < BNN_SIDE; i++) {
        part[BNN_SIDE + i] += *w;
        bnn_toom_three(sums + BNN_SIDE * i, part + i);
    }
    return w + 1;
}

static void bnn_toom_bits(const bnn_tile_t *tile)
{
    uint32_t sums[BNN_TOOM_SUMS];

    for (uint32_t i = 0; i < BNN_TOOM_SUMS; i++) {
        tile->to[i] = 0;
    }
    for (const uint32_t *w = tile->weights; w != tile->end;) {
        w = bnn_toom_filter(tile, w, sums);
        for (uint32_t i = 0; i < BNN_TOOM_SUMS; i++) {
            tile->to[i] = tile->to[i] << 1 | sums[i] >> 31;
        }
    }
}

static void bnn_toom_sums(const bnn_tile_t *tile)
{
    uint32_t *to = tile->to;

    for (const uint32_t *w = tile->weights; w != tile->end; to += BNN_TOOM_SUMS) {
        w = bnn_toom_filter(tile, w, to);
    }
}
#endif

/* The sums of some filters, of which the last comes first, to a position. */
static void bnn_toom_put(const bnn_first_t *first, const uint32_t *sums, uint32_t filters,
                         uint32_t *out)
{
    for (uint32_t filter = filters; filter-- > 0; sums += BNN_TOOM_SUMS) {
        /* They are 4 times too large. */
        const uint32_t negative = 0u - (*sums >> 31);
        out[filter] = bnn_rectified((int32_t)(*sums >> 2 | negative << 30), first->relu);
    }
}

/* What a tile made for the filters of a group, as far as it lies in the output. */
static void bnn_toom_store(const bnn_first_t *first, const uint32_t *sums, uint32_t filters,
                           uint32_t group, uint32_t oy, uint32_t ox, uint32_t *out)
{
    const bnn_shape_t *s = &first->shape;
    const uint32_t groups = bnn_words(s->out_c);

    for (uint32_t i = 0; i < BNN_SIDE && oy + i < s->out_h; i++) {
        for (uint32_t j = 0; j < BNN_SIDE && ox + j < s->out_w; j++) {
            const uint32_t position = (oy + i) * s->out_w + ox + j;
            const uint32_t *const from = sums + BNN_SIDE * i + j;
            if (first->flip != NULL) {
                out[position * groups + group] = *from ^ first->flip[group];
            } else {
                bnn_toom_put(first, from, filters, out + position * s->out_c + 32u * group);
            }
        }
    }
}

void bnn_first_toom(const bnn_first_t *first, const uint8_t *in, uint32_t *scratch, uint32_t *out)
{
    const bnn_shape_t *s = &first->shape;
    const uint32_t phases = (uint32_t)s->in_c * s->stride_y * s->stride_x;
    const uint32_t fours = (phases + BNN_FOUR - 1u) / BNN_FOUR;
    uint32_t *const square = scratch, *const sums = square + BNN_POINTS * BNN_POINTS;
    uint32_t *const v = sums + 32u * BNN_TOOM_SUMS;
    const uint32_t size = BNN_POINTS * BNN_POINTS * BNN_FOUR * fours;
    const uint32_t groups = bnn_words(s->out_c);

    for (uint32_t i = 0; i < size; i++) {
        v[i] = 0; /* where whole fours are filled up */
    }
    for (uint32_t oy = 0; oy < s->out_h; oy += BNN_SIDE) {
        for (uint32_t ox = 0; ox < s->out_w; ox += BNN_SIDE) {
            const uint32_t *weights = first->weights;
            bnn_toom_inputs(first, in, oy, ox, square, v, BNN_FOUR * fours);
            for (uint32_t group = 0; group < groups; group++) {
                const uint32_t rest = s->out_c - 32u * group, filters = rest < 32u ? rest : 32u;
                const uint32_t *const end = weights + filters * (size + 1u);
                const bnn_tile_t tile = {sums, v, end, fours, weights};
                if (first->flip != NULL) {
                    bnn_toom_bits(&tile);
                } else {
                    bnn_toom_sums(&tile);
                }
                weights = end;
                bnn_toom_store(first, sums, filters, group, oy, ox, out);
            }
        }
    }
}
