/* Convolutions of pixels as two-dimensional fast FIR filters. */
#include "bnn_first.h"

#include "bnn_first_thumb2.h"
#include "bnn_internal.h"

/* The differences of two pairs. */
static inline uint32_t bnn_pair_minus(uint32_t x, uint32_t y)
{
#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
    uint32_t difference;
    __asm__("ssub16 %0, %1, %2" : "=r"(difference) : "r"(x), "r"(y));
    return difference;
#else
    return ((x - y) & 0xFFFFu) | ((x & 0xFFFF0000u) - (y & 0xFFFF0000u));
#endif
}

#if !defined(BNN_FIR_ASM)
/* Two pairs of products, added to a sum; sums are modulo 2^32. */
static inline uint32_t bnn_pair(uint32_t x, uint32_t w, uint32_t sum)
{
    const int32_t low = (int32_t)(int16_t)(uint16_t)x * (int16_t)(uint16_t)w;
    const int32_t high = (int32_t)(int16_t)(uint16_t)(x >> 16) * (int16_t)(uint16_t)(w >> 16);
    return sum + (uint32_t)low + (uint32_t)high;
}
#endif

/* Words of the sums with the even rows, before those with the odd rows. */
#define BNN_FIR_SIZE (BNN_FIR_FILTERS * BNN_FIR_PAIRS)
#define BNN_FIR_THREE (3u * BNN_FIR_SIZE)

/* What the sums of a row of parts begin with. */
typedef struct bnn_fir_begin {
    const int32_t *bias; /* of each filter; NULL: none */
    int kept;            /* the sums that are there already */
    int bits;            /* signs are all that is wanted of the sums */
} bnn_fir_begin_t;

/*
 * Adds to seven sums for each filter, an even number of them, of four rows of eight pairs of pixels
 * each, with two pairs of weights a row.  With twice, the sums are put in the
 * place for odd rows too; sums that are not kept are always.
 *
 * In assembly, where signs are wanted, sums with a bias are 2^30 less and those
 * without 2^30 more: all are within it, so that one of each has a carry where it
 * is not negative.
 */
static void bnn_fir_row(const uint32_t *pixels, const uint32_t *weights, uint32_t filters,
                        const bnn_fir_begin_t *begin, int twice, uint32_t *to)
{
#if defined(BNN_FIR_ASM)
    register const uint32_t *r0 __asm__("r0") = weights;
    register uint32_t *r1 __asm__("r1") = to;
    register uint32_t *r2 __asm__("r2") = to + filters * BNN_FIR_PAIRS;
    register const uint32_t *r3 __asm__("r3") = pixels;
    /* cppcheck-suppress constStatement */
    register uintptr_t r4 __asm__("r4") = begin->bits ? 0x40000000u : 0;
    if (!twice) {
        BNN_FIR_RUN(BNN_FIR_ENTER, BNN_FIR_KEPT, BNN_MAC, "", BNN_FIR_LOOP);
    } else if (begin->kept) {
        BNN_FIR_RUN(BNN_FIR_ENTER, BNN_FIR_KEPT, BNN_MAC, BNN_FIR_COPY, BNN_FIR_LOOP);
    } else if (begin->bias != NULL) {
        r4 = (uintptr_t)begin->bias;
        BNN_FIR_RUN(BNN_FIR_ENTER_NEW, BNN_FIR_BIAS, BNN_FIR_NEW, BNN_FIR_COPY, BNN_FIR_LOOP_NEW);
    } else {
        BNN_FIR_RUN(BNN_FIR_ENTER_NEW, BNN_FIR_CONSTANT, BNN_FIR_NEW, BNN_FIR_COPY,
                    BNN_FIR_LOOP_NEW);
    }
#else
    for (uint32_t filter = 0; filter < filters; filter++, weights += 8) {
        const uint32_t bias = begin->bias != NULL ? (uint32_t)begin->bias[filter] : 0;
        for (uint32_t p = 0; p < BNN_FIR_PAIRS; p++, to++) {
            uint32_t sum = begin->kept ? *to : bias;
            for (uint32_t row = 0; row < 4u; row++) {
                sum = bnn_pair(pixels[8u * row + p], weights[2u * row], sum);
                sum = bnn_pair(pixels[8u * row + p + 1u], weights[2u * row + 1u], sum);
            }
            *to = sum;
            if (twice) {
                to[BNN_FIR_THREE] = sum;
            }
        }
    }
#endif
}

/* One row of an image, from a column that may lie in the padding, in pairs of pixels. */
static void bnn_pair_row(const bnn_first_t *first, const uint8_t *in, uint32_t channel, uint32_t y,
                         uint32_t x, uint32_t *to, uint32_t words)
{
    const bnn_shape_t *s = &first->shape;
    const uint32_t fill = first->fill != NULL ? first->fill[channel] : 0;
    const uint32_t step = s->in_c;

    if (y >= s->in_h) {
        for (uint32_t i = 0; i < words; i++) {
            to[i] = fill << 16 | fill;
        }
        return;
    }
    const uint8_t *from = in + (size_t)y * s->in_w * step + channel;
    for (uint32_t i = 0; i < words; i++, x += 2u) {
        /* Pairs inside come one after the other. */
        if (x < s->in_w - 1u) {
            const uint32_t there = (s->in_w - x) / 2u, left = words - i;
            const uint32_t *const end = to + i + (there < left ? there : left);
            const uint8_t *pixel = from + x * step;
            for (uint32_t *pair = to + i; pair != end; pair++, pixel += 2u * step, i++, x += 2u) {
                *pair = (uint32_t)pixel[step] << 16 | pixel[0];
            }
        }
        if (i == words) {
            break;
        }
        const uint32_t low = x < s->in_w ? from[x * step] : fill;
        const uint32_t high = x + 1u < s->in_w ? from[(x + 1u) * step] : fill;
        to[i] = high << 16 | low;
    }
}

/* The nine parts of the columns and rows of six rows of pixels, behind those of the rows before. */
static void bnn_fir_parts(const uint32_t *band, uint32_t *parts)
{
    for (uint32_t a = 0; a < 2u; a++, band += BNN_FIR_WORDS) {
        uint32_t *to = parts + 16u + 8u * a;
        uint32_t middle[2] = {0, 0}, before[2] = {0, 0}, after[2] = {0, 0};
        for (uint32_t j = 0; j < BNN_FIR_WORDS; j++) {
            const uint32_t x1 = band[2u * BNN_FIR_WORDS + j];
            const uint32_t x0 = bnn_pair_minus(band[j], x1);
            const uint32_t x2 = bnn_pair_minus(band[4u * BNN_FIR_WORDS + j], x1);
            if (j % 2u != 0) {
                to[0] = bnn_pair_minus(middle[0], x1);
                to[32] = bnn_pair_minus(before[0], x0);
                to[64] = bnn_pair_minus(after[0], x2);
                to[96] = x1;
                to[128] = x0;
                to[160] = x2;
                middle[1] = x1;
                before[1] = x0;
                after[1] = x2;
            } else {
                if (j != 0) {
                    to[192] = bnn_pair_minus(x1, middle[1]);
                    to[224] = bnn_pair_minus(x0, before[1]);
                    to[256] = bnn_pair_minus(x2, after[1]);
                    to++;
                }
                middle[0] = x1;
                before[0] = x0;
                after[0] = x2;
            }
        }
    }
}

/* Moves the parts of the newest rows to where the older ones are, and the pixels likewise. */
static void bnn_fir_advance(uint32_t *band, uint32_t *parts)
{
    for (uint32_t i = 0; i < 2u * BNN_FIR_WORDS; i++) {
        band[i] = band[4u * BNN_FIR_WORDS + i];
    }
    for (uint32_t part = 0; part < 9u; part++, parts += 32) {
        for (uint32_t i = 0; i < 16u; i++) {
            parts[i] = parts[16u + i];
        }
    }
}

/* The sums of column part c, from where those of a filter and a column are. */
#define BNN_FIR_EVEN(q, c) ((q)[(c) * BNN_FIR_SIZE])
#define BNN_FIR_ODD(q, c) ((q)[(c) * BNN_FIR_SIZE + BNN_FIR_THREE])

/* Which of the four sums of a column of pairs are not negative, of every filter. */
typedef struct bnn_fir_signs {
    uint32_t even[2], odd[2];
} bnn_fir_signs_t;

#if defined(BNN_FIR_ASM)
/*
 * A sum's carry says that it is not negative.  Two filters a turn, from the last
 * to the first: r11 and r12 are the middle columns of two positions, lr and r7
 * those beside them.
 */
#define BNN_FIR_SIGNS2(from, step, e0, e1)                                                         \
    "ldrd lr, r7, [" from ", #" step "]\n\t"                                                       \
    "adds lr, lr, r11\n\t"                                                                         \
    "adc " e0 ", " e0 ", " e0 "\n\t"                                                               \
    "adds r7, r7, r12\n\t"                                                                         \
    "adc " e1 ", " e1 ", " e1 "\n\t"
#define BNN_FIR_SIGNS1(from, step, e0)                                                             \
    "ldr lr, [" from ", #" step "]\n\t"                                                            \
    "adds lr, lr, r11\n\t"                                                                         \
    "adc " e0 ", " e0 ", " e0 "\n\t"
#define BNN_FIR_SIGNS2_FILTER                                                                      \
    "ldrd r11, r12, [r0, #-28]!\n\t"                                                               \
    BNN_FIR_SIGNS2("r0", "-896", "r2", "r6")                                                       \
    BNN_FIR_SIGNS2("r0", "896", "r3", "r8")                                                        \
    "ldrd r11, r12, [r1, #-28]!\n\t"                                                               \
    BNN_FIR_SIGNS2("r1", "-896", "r4", "r9")                                                       \
    BNN_FIR_SIGNS2("r1", "896", "r5", "r10")
#define BNN_FIR_SIGNS1_FILTER(left, middle, right)                                                 \
    "ldr r11, [%[even], #" middle "]\n\t"                                                          \
    BNN_FIR_SIGNS1("%[even]", left, "%[e0]")                                                       \
    BNN_FIR_SIGNS1("%[even]", right, "%[e1]")                                                      \
    "ldr r11, [%[odd], #" middle "]\n\t"                                                           \
    BNN_FIR_SIGNS1("%[odd]", left, "%[o0]")                                                        \
    BNN_FIR_SIGNS1("%[odd]", right, "%[o1]")

static void bnn_fir_signs2(const uint32_t *sums, uint32_t filters, bnn_fir_signs_t *signs)
{
    register const uint32_t *r0 __asm__("r0") = sums + BNN_FIR_SIZE + filters * BNN_FIR_PAIRS;
    register const uint32_t *r1 __asm__("r1") = r0 + BNN_FIR_THREE;
    register const void *r2 __asm__("r2") = sums + BNN_FIR_SIZE;
    register bnn_fir_signs_t *r3 __asm__("r3") = signs;
    __asm__ volatile("push {r2, r3, r7}\n\t"
                     "mov r2, #0\n\tmov r3, #0\n\tmov r4, #0\n\tmov r5, #0\n\t"
                     "mov r6, #0\n\tmov r8, #0\n\tmov r9, #0\n\tmov r10, #0\n"
                     "1:\n\t" BNN_FIR_SIGNS2_FILTER BNN_FIR_SIGNS2_FILTER
                     "ldr r11, [sp]\n\t"
                     "cmp r0, r11\n\t"
                     "bne 1b\n\t"
                     "pop {r0, r1, r7}\n\t"
                     "stmia r1, {r2, r3, r4, r5, r6, r8, r9, r10}"
                     : "+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3)
                     :
                     : "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory");
}

static void bnn_fir_signs1(const uint32_t *sums, uint32_t filters, bnn_fir_signs_t *signs)
{
    const uint32_t *even = sums + filters * BNN_FIR_PAIRS, *odd = even + BNN_FIR_THREE;
    uint32_t e0 = 0, e1 = 0, o0 = 0, o1 = 0;
    __asm__ volatile("1:\n\t"
                     "sub %[even], %[even], #56\n\t"
                     "sub %[odd], %[odd], #56\n\t"
                     BNN_FIR_SIGNS1_FILTER("28", "924", "1820")
                     BNN_FIR_SIGNS1_FILTER("0", "896", "1792")
                     "cmp %[even], %[last]\n\t"
                     "bne 1b"
                     : [even] "+&r"(even), [odd] "+&r"(odd), [e0] "+&r"(e0), [e1] "+&r"(e1),
                       [o0] "+&r"(o0), [o1] "+&r"(o1)
                     : [last] "r"(sums)
                     : "r11", "lr", "cc", "memory");
    *signs = (bnn_fir_signs_t){{e0, e1}, {o0, o1}};
}
#else
static void bnn_fir_signs1(const uint32_t *sums, uint32_t filters, bnn_fir_signs_t *signs)
{
    uint32_t e0 = 0, e1 = 0, o0 = 0, o1 = 0;

    for (const uint32_t *q = sums + filters * BNN_FIR_PAIRS; q != sums;) {
        q -= BNN_FIR_PAIRS;
        e0 = e0 << 1 | ~(BNN_FIR_EVEN(q, 0u) + BNN_FIR_EVEN(q, 1u)) >> 31;
        e1 = e1 << 1 | ~(BNN_FIR_EVEN(q, 2u) + BNN_FIR_EVEN(q, 1u)) >> 31;
        o0 = o0 << 1 | ~(BNN_FIR_ODD(q, 0u) + BNN_FIR_ODD(q, 1u)) >> 31;
        o1 = o1 << 1 | ~(BNN_FIR_ODD(q, 2u) + BNN_FIR_ODD(q, 1u)) >> 31;
    }
    *signs = (bnn_fir_signs_t){{e0, e1}, {o0, o1}};
}

static void bnn_fir_signs2(const uint32_t *sums, uint32_t filters, bnn_fir_signs_t *signs)
{
    bnn_fir_signs1(sums, filters, signs);
    bnn_fir_signs1(sums + 1, filters, signs + 1);
}
#endif

static void bnn_fir_bits(const bnn_first_t *first, const uint32_t *sums, uint32_t filters,
                         uint32_t group, uint32_t oy, uint32_t ox, uint32_t *out)
{
    const bnn_shape_t *s = &first->shape;
    const uint32_t words = bnn_words(s->out_c), below = s->out_w * words;
    const uint32_t used = 0xFFFFFFFFu >> (BNN_FIR_FILTERS - filters);
    const uint32_t flip = first->flip[group] ^ used;
    const uint32_t made = filters + filters % 2u;
    const int both = oy + 1u < s->out_h;
    /* One more than used: the loops push as much, which no compiler reports. */
    bnn_fir_signs_t signs[BNN_FIR_PAIRS + 1u];

    for (uint32_t n = 0; n + 1u < BNN_FIR_PAIRS; n += 2u) {
        bnn_fir_signs2(sums + n, made, signs + n);
    }
    bnn_fir_signs1(sums + BNN_FIR_PAIRS - 1u, made, signs + BNN_FIR_PAIRS - 1u);
    out += (oy * s->out_w + ox) * words + group;
    for (uint32_t n = 0; n < 2u * BNN_FIR_PAIRS && ox + n < s->out_w; n++, out += words) {
        out[0] = (signs[n / 2u].even[n % 2u] & used) ^ flip;
        if (both) {
            out[below] = (signs[n / 2u].odd[n % 2u] & used) ^ flip;
        }
    }
}

static void bnn_fir_sums(const bnn_first_t *first, const uint32_t *sums, uint32_t filters,
                         uint32_t group, uint32_t oy, uint32_t ox, uint32_t *out)
{
    const bnn_shape_t *s = &first->shape;
    const uint32_t drop = first->relu ? 0xFFFFFFFFu : 0;

    for (uint32_t i = 0; i < 4u * BNN_FIR_PAIRS; i++) {
        const uint32_t odd = i / 2u % 2u, right = i % 2u, n = i / 4u;
        const uint32_t y = oy + odd, x = ox + 2u * n + right;
        if (y >= s->out_h || x >= s->out_w) {
            continue;
        }
        const uint32_t *q = sums + n;
        uint32_t *to = out + ((size_t)y * s->out_w + x) * s->out_c + BNN_FIR_FILTERS * group;
        for (uint32_t filter = 0; filter < filters; filter++, q += BNN_FIR_PAIRS) {
            const uint32_t even_sum = BNN_FIR_EVEN(q, 1u) + BNN_FIR_EVEN(q, 2u * right);
            const uint32_t odd_sum = BNN_FIR_ODD(q, 1u) + BNN_FIR_ODD(q, 2u * right);
            const uint32_t sum = odd != 0 ? odd_sum : even_sum;
            *to++ = sum & ~((0u - (sum >> 31)) & drop);
        }
    }
}

/* All sums of a row of pairs for some filters: for each part of the columns those of the rows. */
static const uint32_t *bnn_fir_filters(const bnn_first_t *first, const uint32_t *weights,
                                       const uint32_t *parts, uint32_t filters, uint32_t group,
                                       uint32_t *sums)
{
    const uint32_t channels = first->shape.in_c;
    /* The last may be one of zeros. */
    const uint32_t made = filters + filters % 2u;

    for (uint32_t column = 0; column < 3u; column++) {
        uint32_t *const to = sums + column * BNN_FIR_SIZE;
        bnn_fir_begin_t begin = {NULL, 0, first->bias != NULL};
        if (column == 1u && first->bias != NULL) {
            /* The middle columns are in every sum. */
            begin.bias = first->bias + BNN_FIR_FILTERS * group;
        }
        const uint32_t *pixels = parts;
        for (uint32_t channel = 0; channel < channels; channel++, pixels += BNN_FIR_CHANNEL) {
            /* Sums with the middle rows are in both others. */
            bnn_fir_row(pixels, weights, made, &begin, 1, to);
            weights += 8u * made;
            begin.kept = 1;
        }
        parts += 32;
        for (uint32_t row = 1; row < 3u; row++, parts += 32) {
            pixels = parts;
            for (uint32_t channel = 0; channel < channels; channel++, pixels += BNN_FIR_CHANNEL) {
                bnn_fir_row(pixels, weights, made, &begin, 0, row == 1u ? to : to + BNN_FIR_THREE);
                weights += 8u * made;
            }
        }
    }
    return weights;
}

void bnn_first_fir(const bnn_first_t *first, const uint8_t *in, uint32_t *scratch, uint32_t *out)
{
    const bnn_shape_t *s = &first->shape;
    uint32_t *const sums = scratch, *const bands = scratch + BNN_FIR_SUMS;
    uint32_t *const parts = bands + 6u * BNN_FIR_WORDS;

    for (uint32_t ox = 0; ox < s->out_w; ox += 2u * BNN_FIR_PAIRS) {
        const uint32_t x = 2u * ox - s->pad_x;
        /* The first parts are of the rows before the first sums: they only fill what is older. */
        for (uint32_t row = 0; row < (s->out_h + 1u) / 2u + 1u; row++) {
            for (uint32_t channel = 0; channel < s->in_c; channel++) {
                uint32_t *const band = bands + channel * BNN_FIR_CHANNEL;
                uint32_t first_row = 2u;
                if (row == 0) {
                    first_row = 0;
                } else {
                    bnn_fir_advance(band, parts + channel * BNN_FIR_CHANNEL);
                }
                for (uint32_t i = first_row; i < 6u; i++) {
                    bnn_pair_row(first, in, channel, 4u * row + i - s->pad_y, x,
                                 band + i * BNN_FIR_WORDS, BNN_FIR_WORDS);
                }
                bnn_fir_parts(band, parts + channel * BNN_FIR_CHANNEL);
            }
            if (row == 0) {
                continue;
            }
            const uint32_t *weights = first->weights;
            for (uint32_t group = 0; BNN_FIR_FILTERS * group < s->out_c; group++) {
                const uint32_t rest = s->out_c - BNN_FIR_FILTERS * group;
                const uint32_t filters = rest < BNN_FIR_FILTERS ? rest : BNN_FIR_FILTERS;
                weights = bnn_fir_filters(first, weights, parts, filters, group, sums);
                if (first->bias != NULL) {
                    bnn_fir_bits(first, sums, filters, group, 2u * row - 2u, ox, out);
                } else {
                    bnn_fir_sums(first, sums, filters, group, 2u * row - 2u, ox, out);
                }
            }
        }
    }
}
