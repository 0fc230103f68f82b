/*
 * One output position: bit lanes are output channels, and rows of weights are
 * added up in bit-planes by carry-save adders, for 128 channels at once.
 */
#include "bnn_single_mve.h"

#include "bnn_classes_internal.h"
#include "bnn_internal.h"
#include "bnn_vector_mve.h"

/* The low planes of a count. */
typedef struct bnn_low_single {
    bnn_vec_t ones, twos, fours, eights;
} bnn_low_single_t;

/* A row, inverted where the bit of its input is set. */
static inline bnn_vec_t bnn_vec_masked(const uint32_t *row, uint32_t bits, uint32_t bit)
{
    return bnn_vec_xor(bnn_vec_load(row), bnn_vec_all(0u - (bits >> bit & 1u)));
}

/* Four of them; the carry, worth four, is returned. */
static inline bnn_vec_t bnn_vec_rows4(bnn_low_single_t *low, const uint32_t *rows, uint32_t bits,
                                      uint32_t bit)
{
    bnn_vec_t a = bnn_vec_masked(rows, bits, bit), b;
    a = bnn_vec_add3(&low->ones, a, bnn_vec_masked(rows + 4, bits, bit + 1u));
    BNN_VEC_ORDER();
    b = bnn_vec_masked(rows + 8, bits, bit + 2u);
    b = bnn_vec_add3(&low->ones, b, bnn_vec_masked(rows + 12, bits, bit + 3u));
    BNN_VEC_ORDER();
    return bnn_vec_add3(&low->twos, a, b);
}

/* Adds a block of 16 rows; the carry, worth 16, is returned. */
static inline bnn_vec_t bnn_vec_rows16(bnn_low_single_t *low, const uint32_t *rows, uint32_t bits)
{
    bnn_vec_t a = bnn_vec_rows4(low, rows, bits, 0), b;
    a = bnn_vec_add3(&low->fours, a, bnn_vec_rows4(low, rows + 16, bits, 4));
    b = bnn_vec_rows4(low, rows + 32, bits, 8);
    b = bnn_vec_add3(&low->fours, b, bnn_vec_rows4(low, rows + 48, bits, 12));
    return bnn_vec_add3(&low->eights, a, b);
}

/* Adds a bit to planes from the first on; nothing may be carried out of the last. */
static inline void bnn_vec_carry(uint32_t *planes, uint32_t n, bnn_vec_t carry)
{
    for (; n > 0; n--, planes += 4) {
        const bnn_vec_t plane = bnn_vec_load(planes);
        bnn_vec_store(planes, bnn_vec_xor(plane, carry));
        carry = bnn_vec_and(plane, carry);
    }
}

/* Adds bits to planes, of which there are enough for the count, and four at least. */
static void bnn_vec_add_carries(uint32_t *planes, uint32_t n, const uint32_t *carries,
                                uint32_t count)
{
    bnn_vec_t ones = bnn_vec_load(planes), twos = bnn_vec_load(planes + 4);

    for (; count >= 4u; count -= 4u, carries += 16) {
        const bnn_vec_t a = bnn_vec_load(carries), c = bnn_vec_load(carries + 8);
        const bnn_vec_t b = bnn_vec_add3(&ones, a, bnn_vec_load(carries + 4));
        const bnn_vec_t d = bnn_vec_add3(&ones, c, bnn_vec_load(carries + 12));
        bnn_vec_carry(planes + 8, n - 2u, bnn_vec_add3(&twos, b, d));
    }
    bnn_vec_store(planes, ones);
    bnn_vec_store(planes + 4, twos);
    for (; count > 0; count--, carries += 4) {
        bnn_vec_carry(planes, n, bnn_vec_load(carries));
    }
}

/* The mismatches of the channels of a word, in bit-planes four words apart, become sums. */
static void bnn_vec_sums(const bnn_single_mve_t *single, const uint32_t *planes, uint32_t channels,
                         uint32_t *block, uint32_t *out)
{
    const uint32_t drop = single->relu ? 0xFFFFFFFFu : 0;

    for (uint32_t i = 0; i < 32u; i++) {
        block[i] = i < single->planes ? planes[4u * i] : 0;
    }
    bnn_transpose(block);
    for (uint32_t i = 0; i < channels; i++) {
        const uint32_t sum = single->inputs - 2u * block[i];
        out[i] = sum & ~((0u - (sum >> 31)) & drop);
    }
}

/* The rows of all taps inside; returns the rest of the rows. */
static const uint32_t *bnn_vec_add_taps(const bnn_shape_t *s, const bnn_window_t *at,
                                        const uint32_t *in, const uint32_t *rows,
                                        bnn_low_single_t *sums, uint32_t *carries)
{
    const uint32_t words = bnn_words(s->in_c), halves = (s->in_c + 15u) / 16u;
    bnn_low_single_t low = *sums;

    for (uint32_t ky = at->rows.first; ky < at->rows.last; ky++) {
        for (uint32_t kx = at->cols.first; kx < at->cols.last; kx++) {
            const uint32_t *from = in + bnn_position(s, at, ky, kx) * words;
            for (uint32_t i = 0; i < halves; i++, rows += 64, carries += 4) {
                const uint32_t bits = from[i / 2u] >> (i % 2u * 16u);
                bnn_vec_store(carries, bnn_vec_rows16(&low, rows, bits));
            }
        }
    }
    *sums = low;
    return rows;
}

void bnn_single_vectors(const bnn_single_mve_t *single, const uint32_t *in, uint32_t *scratch,
                        uint32_t *out)
{
    const bnn_shape_t *s = &single->shape;
    const uint32_t groups = bnn_words(s->out_c), n = single->planes;
    const bnn_window_t at = bnn_window(s, 0, 0);
    const uint32_t *rows = single->rows, *bound = single->bound;
    uint32_t *const planes = scratch, *const carries = planes + 4u * n;
    uint32_t *const block = carries + 4u * single->blocks;

    for (uint32_t group = 0; group < groups; group += 4u) {
        for (uint32_t i = 0; i < 4u * n; i++) {
            /* Not the bound: the sign plane is set until more than that has been added. */
            planes[i] = bound != NULL ? ~*bound++ : 0;
        }
        bnn_low_single_t low = {bnn_vec_load(planes), bnn_vec_load(planes + 4),
                                bnn_vec_load(planes + 8), bnn_vec_load(planes + 12)};
        rows = bnn_vec_add_taps(s, &at, in, rows, &low, carries);
        bnn_vec_store(planes, low.ones);
        bnn_vec_store(planes + 4, low.twos);
        bnn_vec_store(planes + 8, low.fours);
        bnn_vec_store(planes + 12, low.eights);
        bnn_vec_add_carries(planes + 16, n - 4u, carries, single->blocks);
        for (uint32_t g = group; g < group + 4u && g < groups; g++) {
            const uint32_t left = s->out_c - 32u * g, channels = left < 32u ? left : 32u;
            if (bound != NULL) {
                const uint32_t flip = single->flip != NULL ? single->flip[g] : 0;
                *out++ = planes[4u * (n - 1u) + g - group] ^ flip;
            } else {
                bnn_vec_sums(single, planes + g - group, channels, block, out);
                out += channels;
            }
        }
    }
}
