/* What the class kernels read: for each input of a window, a word over output positions. */
#include "bnn_classes_internal.h"

#if defined(__thumb2__) && !defined(BNN_PORTABLE)
#include "bnn_class_inputs_thumb2.h"
#define BNN_THUMB2 1
#define BNN_HAS_LOOPS 1
#elif defined(__thumb__) && !defined(BNN_PORTABLE)
#include "bnn_class_inputs_thumb1.h"
#define BNN_HAS_LOOPS 1
#endif

/* Words of inputs after which a zero stands. */
#define BNN_BLOCKS 3u

#ifndef BNN_HAS_LOOPS
/* The high bits of a's fields change places with the low bits of b's. */
static inline void bnn_swap(uint32_t *a, uint32_t *b, uint32_t step, uint32_t mask)
{
    const uint32_t swap = (*a >> step ^ *b) & mask;
    *b ^= swap;
    *a ^= swap << step;
}

/* 32 words, each at its lane's place behind base, to block: half transposed. */
static void bnn_collect(uint32_t *block, const uint32_t *base, const uint32_t *lane)
{
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t a = base[lane[i]], b = base[lane[i + 8]];
        uint32_t c = base[lane[i + 16]], d = base[lane[i + 24]];
        bnn_swap(&a, &c, 16, 0x0000FFFFu);
        bnn_swap(&b, &d, 16, 0x0000FFFFu);
        bnn_swap(&a, &b, 8, 0x00FF00FFu);
        bnn_swap(&c, &d, 8, 0x00FF00FFu);
        block[i] = a;
        block[i + 8] = b;
        block[i + 16] = c;
        block[i + 24] = d;
    }
}

/* The other half. */
static void bnn_finish(uint32_t *block)
{
    static const uint32_t masks[3] = {0x0F0F0F0Fu, 0x33333333u, 0x55555555u};

    for (uint32_t level = 0, step = 4; level < 3; level++, step /= 2) {
        for (uint32_t i = 0; i < 32; i = (i + step + 1) & ~step) {
            bnn_swap(&block[i], &block[i + step], step, masks[level]);
        }
    }
}

/*
 * The other half too, and what becomes of the channels of a word: each and its
 * complement, in the lanes inside.  x has room for whole octets of channels.
 */
static uint32_t *bnn_put_block(uint32_t *x, uint32_t *block, uint32_t count, uint32_t inside)
{
    bnn_finish(block);
    for (uint32_t i = 0; i < count; i++) {
        *x++ = block[i] & inside;
        *x++ = inside & ~block[i];
    }
    return x;
}
#endif

void bnn_transpose(uint32_t *rows)
{
    static const uint32_t same[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                      11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                      22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

    bnn_collect(rows, rows, same);
    bnn_finish(rows);
}

/* Where the windows of the lanes begin; lanes without a position have that of the first. */
static void bnn_begin(const bnn_shape_t *s, const bnn_room_t *room, uint32_t first, uint32_t lanes)
{
    uint32_t oy = first / s->out_w, ox = first % s->out_w;

    for (uint32_t i = 0; i < lanes; i++) {
        room->y[i] = oy * s->stride_y - s->pad_y;
        room->x0[i] = ox * s->stride_x - s->pad_x;
        if (++ox == s->out_w) {
            ox = 0;
            oy++;
        }
    }
    for (uint32_t i = lanes; i < 32; i++) {
        room->y[i] = room->y[0];
        room->x0[i] = room->x0[0];
    }
}

/* The lanes of which start + step lies below size, modulo 2^32. */
static uint32_t bnn_below(const uint32_t *start, uint32_t step, uint32_t size)
{
    uint32_t below = 0;

    for (uint32_t i = 32; i-- > 0;) {
        below = below << 1 | (uint32_t)(start[i] + step < size);
    }
    return below;
}

/* The masks of the kernel's columns; 1 if every tap of every window lies inside. */
static int bnn_columns(const bnn_shape_t *s, const bnn_room_t *room, uint32_t all)
{
    const uint32_t down = (s->out_h - 1u) * s->stride_y + (s->kernel_h - 1u) * s->dilation_y;
    const uint32_t along = (s->out_w - 1u) * s->stride_x + (s->kernel_w - 1u) * s->dilation_x;
    const int whole = s->pad_y == 0 && s->pad_x == 0 && down < s->in_h && along < s->in_w;

    for (uint32_t kx = 0; kx < s->kernel_w; kx++) {
        room->cols[kx] = whole ? all : bnn_below(room->x0, kx * s->dilation_x, s->in_w) & all;
    }
    return whole;
}

/* The bits from bit shift on, for the channels of a word, whose planes are pitch apart. */
static uint32_t *bnn_put_shifted(uint32_t *x, const uint32_t *plane, uint32_t pitch,
                                 uint32_t count, uint32_t shift, uint32_t inside)
{
    if (shift == 0) {
        for (; count > 0; count--, plane += pitch) {
            *x++ = *plane & inside;
            *x++ = inside & ~*plane;
        }
        return x;
    }
#ifdef BNN_THUMB2
    return bnn_put_shifts(x, plane, pitch, count, shift, inside);
#else
    for (; count > 0; count--, plane += pitch) {
        const uint32_t word = plane[0] >> shift | plane[1] << (32u - shift);
        *x++ = word & inside;
        *x++ = inside & ~word;
    }
    return x;
#endif
}

void bnn_class_planes(const bnn_classes_t *conv, const uint32_t *in, const bnn_room_t *room)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t words = bnn_words(s->in_c), positions = (uint32_t)s->in_h * s->in_w;

    for (uint32_t first = 0, at = conv->guard; first < positions; first += 32, at++) {
        const uint32_t left = positions - first, lanes = left < 32u ? left : 32u;
        for (uint32_t i = 0; i < 32; i++) {
            room->y[i] = (first + (i < lanes ? i : 0)) * words;
        }
        for (uint32_t w = 0; w < words; w++) {
            uint32_t *plane = room->planes + (size_t)w * 32u * conv->pitch + at;
            bnn_collect(room->block, in + w, room->y);
            bnn_finish(room->block);
            for (uint32_t i = 0; i < 32; i++, plane += conv->pitch) {
                *plane = room->block[i];
            }
        }
    }
}

void bnn_class_inputs(const bnn_classes_t *conv, const uint32_t *in, const bnn_room_t *room,
                      uint32_t first, uint32_t lanes)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t words = bnn_words(s->in_c), all = 0xFFFFFFFFu >> (32u - lanes);
    uint32_t *x = room->x, blocks = 0;
    uint32_t *const lane = room->marks;

    bnn_begin(s, room, first, lanes);
    const int whole = bnn_columns(s, room, all);
    for (uint32_t i = 0; whole && i < 32; i++) {
        lane[i] = (room->y[i] * s->in_w + room->x0[i]) * words;
    }
    *x++ = 0;
    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        const uint32_t down = ky * s->dilation_y;
        const uint32_t rows = whole ? all : bnn_below(room->y, down, s->in_h);
        for (uint32_t kx = 0; kx < s->kernel_w; kx++) {
            /* Lanes without a position see what the first one does: they may count as inside. */
            const uint32_t inside = whole ? 0xFFFFFFFFu : rows & room->cols[kx];
            const uint32_t along = kx * s->dilation_x;
            /* Of the first lane's tap, counted in bits of the planes. */
            const uint32_t bit = first + 32u * conv->guard +
                                 (down - s->pad_y) * s->in_w + along - s->pad_x;
            const uint32_t tap = whole ? (down * s->in_w + along) * words : 0;
            for (uint32_t i = 0; !whole && conv->pitch == 0 && i < 32; i++) {
                const uint32_t at = (room->y[i] + down) * s->in_w + room->x0[i] + along;
                lane[i] = inside >> i & 1u ? at * words : 0;
            }
            for (uint32_t w = 0; w < words; w++) {
                const uint32_t left = s->in_c - 32u * w, count = left < 32u ? left : 32u;
                if (conv->pitch != 0) {
                    const uint32_t *plane = room->planes + (size_t)w * 32u * conv->pitch;
                    x = bnn_put_shifted(x, plane + bit / 32u, conv->pitch, count, bit % 32u,
                                        inside);
                } else {
                    bnn_collect(room->block, in + tap + w, lane);
                    x = bnn_put_block(x, room->block, count, inside);
                }
                if (++blocks == BNN_BLOCKS) {
                    blocks = 0;
                    *x++ = 0;
                }
            }
        }
    }
    *x = 0;
}

void bnn_class_taps(const bnn_shape_t *s, const bnn_room_t *room, uint32_t lanes)
{
    for (uint32_t i = 0; i < lanes; i++) {
        uint32_t rows = 0, cols = 0;
        for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
            rows += (uint32_t)(room->y[i] + ky * s->dilation_y < s->in_h);
        }
        for (uint32_t kx = 0; kx < s->kernel_w; kx++) {
            cols += room->cols[kx] >> i & 1u;
        }
        room->taps[i] = rows * cols * s->in_c;
    }
}
