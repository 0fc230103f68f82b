/*
 * What the class kernel with vectors reads: for each input of a window, a word over
 * output positions, and its complement; both are zero where the tap lies in the padding.
 */
#include "bnn_classes_internal_mve.h"

/*
 * A block is the words of 32 lanes: word l of vector v belongs to lane 8 l + v.
 * Vectors c of its transpose have channels c, 8 + c .. as their bytes 0, 1 .. of each word, and
 * the lanes from 8 l on as the bits of these bytes.
 */
#if defined(BNN_HELIUM)
/* The bits from step on of a's bytes change places with those below of b's. */
#define BNN_VEC_SWAP(a, b, step, mask)                                                             \
    do {                                                                                           \
        const bnn_vec_t swap_ =                                                                    \
            vandq_u32(veorq_u32(vshrq_n_u32(a, step), b), vdupq_n_u32(mask));                      \
        (b) = veorq_u32(b, swap_);                                                                 \
        (a) = veorq_u32(a, vshlq_n_u32(swap_, step));                                              \
    } while (0)
#define BNN_VEC_SWAP4(a, b)                                                                        \
    do {                                                                                           \
        const uint8x16_t a_ = vreinterpretq_u8_u32(a), b_ = vreinterpretq_u8_u32(b);               \
        (a) = vreinterpretq_u32_u8(vsliq_n_u8(a_, b_, 4));                                         \
        (b) = vreinterpretq_u32_u8(vsriq_n_u8(b_, a_, 4));                                         \
    } while (0)
#else
#define BNN_VEC_SWAP(a, b, step, mask)                                                             \
    do {                                                                                           \
        const bnn_vec_t swap_ = bnn_vec_and(bnn_vec_xor(bnn_vec_right(a, step), b),                \
                                            bnn_vec_all(mask));                                    \
        (b) = bnn_vec_xor(b, swap_);                                                               \
        (a) = bnn_vec_xor(a, bnn_vec_left(swap_, step));                                           \
    } while (0)
#define BNN_VEC_SWAP4(a, b) BNN_VEC_SWAP(a, b, 4, 0x0F0F0F0Fu)
#endif

static inline void bnn_vec_transpose(bnn_vec_t *v)
{
    BNN_VEC_SWAP4(v[0], v[4]);
    BNN_VEC_SWAP4(v[1], v[5]);
    BNN_VEC_SWAP4(v[2], v[6]);
    BNN_VEC_SWAP4(v[3], v[7]);
    BNN_VEC_SWAP(v[0], v[2], 2, 0x33333333u);
    BNN_VEC_SWAP(v[1], v[3], 2, 0x33333333u);
    BNN_VEC_SWAP(v[4], v[6], 2, 0x33333333u);
    BNN_VEC_SWAP(v[5], v[7], 2, 0x33333333u);
    BNN_VEC_SWAP(v[0], v[1], 1, 0x55555555u);
    BNN_VEC_SWAP(v[2], v[3], 1, 0x55555555u);
    BNN_VEC_SWAP(v[4], v[5], 1, 0x55555555u);
    BNN_VEC_SWAP(v[6], v[7], 1, 0x55555555u);
}

/* Byte j of word l goes to byte l of word 16 j. */
static inline void bnn_vec_spread(uint32_t *to, bnn_vec_t v)
{
#if defined(BNN_HELIUM)
    static const uint8_t at[16] = {0, 64, 128, 192, 1, 65, 129, 193,
                                   2, 66, 130, 194, 3, 67, 131, 195};
    vstrbq_scatter_offset_u8((uint8_t *)to, vldrbq_u8(at), vreinterpretq_u8_u32(v));
#else
    for (uint32_t j = 0; j < 4u; j++) {
        uint32_t word = 0;
        for (uint32_t l = 0; l < 4u; l++) {
            word |= (v.w[l] >> 8u * j & 0xFFu) << 8u * l;
        }
        to[16u * j] = word;
    }
#endif
}

/* The words of the lanes that are inside; the others read the first of all. */
static inline void bnn_vec_collect(bnn_vec_t *v, const uint32_t *in, const uint32_t *lane,
                                   uint32_t tap, uint32_t inside)
{
    const uint32_t parts[4] = {inside, inside >> 8, inside >> 16, inside >> 24};
    bnn_vec_t bits = bnn_vec_left(bnn_vec_load(parts), 24);

    for (uint32_t i = 8; i-- > 0; bits = bnn_vec_left(bits, 1)) {
        const bnn_vec_t at = bnn_vec_add(bnn_vec_load(lane + 4u * i), tap);
        v[i] = bnn_vec_gather(in, bnn_vec_and(at, bnn_vec_signs(bits)));
    }
}

/* 32 channels of a tap, of which the lanes inside count. */
static void bnn_vec_block(uint32_t *x, const uint32_t *in, const uint32_t *lane, uint32_t tap,
                          uint32_t inside, int whole)
{
    bnn_vec_t v[8];

    if (whole) {
        for (uint32_t i = 0; i < 8u; i++) {
            v[i] = bnn_vec_gather(in + tap, bnn_vec_load(lane + 4u * i));
        }
    } else {
        bnn_vec_collect(v, in, lane, tap, inside);
    }
    bnn_vec_transpose(v);
    const uint32_t bytes[4] = {(inside & 0xFFu) * 0x01010101u, (inside >> 8 & 0xFFu) * 0x01010101u,
                               (inside >> 16 & 0xFFu) * 0x01010101u, (inside >> 24) * 0x01010101u};
    const bnn_vec_t mask = bnn_vec_load(bytes);
    for (uint32_t c = 0; c < 8u; c++) {
        bnn_vec_spread(x + 2u * c, bnn_vec_and(mask, v[c]));
        bnn_vec_spread(x + 2u * c + 1u, bnn_vec_bic(mask, v[c]));
    }
}

/* Where the windows begin, and which lanes' taps lie inside; 1 if all of them do. */
static int bnn_vec_begin(const bnn_shape_t *s, const bnn_room_mve_t *room, uint32_t first,
                         uint32_t lanes)
{
    const uint32_t words = bnn_words(s->in_c), all = 0xFFFFFFFFu >> (32u - lanes);
    const uint32_t down = (s->out_h - 1u) * s->stride_y + (s->kernel_h - 1u) * s->dilation_y;
    const uint32_t along = (s->out_w - 1u) * s->stride_x + (s->kernel_w - 1u) * s->dilation_x;
    const int whole = s->pad_y == 0 && s->pad_x == 0 && down < s->in_h && along < s->in_w;
    uint32_t oy = first / s->out_w, ox = first % s->out_w, begin = 0;

    for (uint32_t i = 0; i < s->kernel_h; i++) {
        room->down[i] = whole ? all : 0;
    }
    for (uint32_t i = 0; i < s->kernel_w; i++) {
        room->along[i] = whole ? all : 0;
    }
    for (uint32_t lane = 0; lane < 32u; lane++) {
        /* Lanes without a position read what the first reads. */
        if (lane < lanes) {
            uint32_t y = oy * s->stride_y - s->pad_y, x = ox * s->stride_x - s->pad_x;
            const uint32_t at = (y * s->in_w + x) * words;
            begin = lane == 0 ? at : begin;
            room->lane[lane % 8u * 4u + lane / 8u] = at;
            for (uint32_t i = 0; !whole && i < s->kernel_h; i++, y += s->dilation_y) {
                room->down[i] |= (uint32_t)(y < s->in_h) << lane;
            }
            for (uint32_t i = 0; !whole && i < s->kernel_w; i++, x += s->dilation_x) {
                room->along[i] |= (uint32_t)(x < s->in_w) << lane;
            }
            if (++ox == s->out_w) {
                ox = 0;
                oy++;
            }
        } else {
            room->lane[lane % 8u * 4u + lane / 8u] = begin;
        }
    }
    return whole;
}

void bnn_class_inputs_mve(const bnn_shape_t *s, const uint32_t *in, const bnn_room_mve_t *room,
                          uint32_t first, uint32_t lanes)
{
    const uint32_t words = bnn_words(s->in_c);
    const int whole = bnn_vec_begin(s, room, first, lanes);
    uint32_t *x = room->x;

    *x++ = 0;
    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < s->kernel_w; kx++) {
            const uint32_t inside = room->down[ky] & room->along[kx];
            const uint32_t tap = (ky * s->dilation_y * s->in_w + kx * s->dilation_x) * words;
            for (uint32_t w = 0; w < words; w++) {
                const uint32_t left = s->in_c - 32u * w, count = left < 32u ? left : 32u;
                /* The next block begins with the words of channels that are missing. */
                bnn_vec_block(x, in + w, room->lane, tap, inside, whole);
                x += 2u * count;
            }
        }
    }
}

void bnn_class_taps_mve(const bnn_shape_t *s, const bnn_room_mve_t *room, uint32_t lanes)
{
    for (uint32_t i = 0; i < lanes; i++) {
        uint32_t rows = 0, cols = 0;
        for (uint32_t k = 0; k < s->kernel_h; k++) {
            rows += room->down[k] >> i & 1u;
        }
        for (uint32_t k = 0; k < s->kernel_w; k++) {
            cols += room->along[k] >> i & 1u;
        }
        room->taps[i] = rows * cols * s->in_c;
    }
}
