/*
 * One output position: bit lanes are output channels, and rows of weights are
 * added up in bit-planes by carry-save adders, for 32 channels at once.
 */
#include "bnn_single.h"

#include "bnn_adders.h"
#include "bnn_internal.h"

#if defined(__thumb__) && !defined(__thumb2__) && !defined(BNN_PORTABLE)
#include "bnn_adders_thumb1.h"
#define BNN_THUMB1 1
#endif

/* Adds a word to planes from the first on; nothing may be carried out of the last. */
static inline void bnn_ripple(uint32_t *planes, uint32_t n, uint32_t carry)
{
    for (uint32_t p = 0; p < n; p++) {
        const uint32_t plane = planes[p];
        planes[p] = plane ^ carry;
        carry &= plane;
    }
}

/* Adds words to planes, of which there are enough for the count. */
static void bnn_add_words(uint32_t *planes, uint32_t n, const uint32_t *words, uint32_t count)
{
    if (count >= 8u && n >= 3u) {
        uint32_t ones = planes[0], twos = planes[1], fours = planes[2];
        for (; count >= 8u; count -= 8u, words += 8) {
            uint32_t t0 = bnn_add3(&ones, words[0], words[1]);
            uint32_t t1 = bnn_add3(&ones, words[2], words[3]);
            const uint32_t f0 = bnn_add3(&twos, t0, t1);
            t0 = bnn_add3(&ones, words[4], words[5]);
            t1 = bnn_add3(&ones, words[6], words[7]);
            const uint32_t f1 = bnn_add3(&twos, t0, t1);
            bnn_ripple(planes + 3, n - 3u, bnn_add3(&fours, f0, f1));
        }
        planes[0] = ones;
        planes[1] = twos;
        planes[2] = fours;
    }
    for (; count > 0; count--) {
        bnn_ripple(planes, n, *words++);
    }
}

/* Adds blocks of 16 rows; the list holds where each begins, in words.  A carry for each block. */
static void bnn_add_listed(bnn_low_t *low, const uint32_t *list, const uint32_t *rows,
                           uint32_t blocks, uint32_t *carries)
{
#if defined(BNN_ADD16_ASM)
    if (blocks != 0) {
        bnn_adding_t adding = {*low, list, rows, carries, carries + blocks, {0}};
        register bnn_adding_t *r0 __asm__("r0") = &adding;
        __asm__ volatile(BNN_ENTER_ASM
                         "1:\n\t" BNN_ADD16_ASM(BNN_LOAD4_ASM, BNN_LOAD2_ASM, BNN_LISTED_ASM)
                         BNN_LEAVE_ASM
                         : "+r"(r0)
                         :
                         : BNN_CLOBBERED);
        *low = adding.low;
    }
#elif defined(BNN_THUMB1)
    if (blocks != 0) {
        bnn_listed_t listed = {*low, list, rows, carries, carries + blocks};
        bnn_add_rows(&listed);
        *low = listed.low;
    }
#else
    for (uint32_t i = 0; i < blocks; i++, list += 16) {
#define BNN_LISTED(r) rows[list[r]]
        BNN_ADD16(*low, BNN_LISTED, carries[i]);
    }
#endif
}

/*
 * Adds blocks of 16 rows, each inverted where its input's bit is set: the
 * inputs are the low half of a word, then its high half, then the next word's.
 */
static void bnn_add_masked(bnn_low_t *low, const uint32_t *rows, const uint32_t *in,
                           uint32_t blocks, uint32_t *carries)
{
#if defined(BNN_ADD16_ASM)
    bnn_adding_t adding = {*low, rows, in, carries, carries + blocks, {0}};
    register bnn_adding_t *r0 __asm__("r0") = &adding;
    __asm__ volatile(BNN_ENTER_ASM
                     "1:\n\tldr r2, [sp]\n\tldrh r1, [r2], #2\n\tstr r2, [sp]\n\t"
                     BNN_ADD16_ASM(BNN_LOAD4_ASM, BNN_LOAD2_ASM, BNN_MASKED_ASM)
                     BNN_LEAVE_ASM
                     : "+r"(r0)
                     :
                     : BNN_CLOBBERED);
    *low = adding.low;
#else
    for (uint32_t i = 0; i < blocks; i++, rows += 16) {
        const uint32_t bits = in[i / 2u] >> (i % 2u * 16u);
#define BNN_MASKED(r) (rows[r] ^ (0u - (bits >> (r) & 1u)))
        BNN_ADD16(*low, BNN_MASKED, carries[i]);
    }
#endif
}

/* The low planes and the carries behind them, which are worth 16. */
static void bnn_add_high(const bnn_low_t *low, uint32_t *planes, uint32_t n,
                         const uint32_t *carries, uint32_t count)
{
    planes[0] = low->ones;
    planes[1] = low->twos;
    planes[2] = low->fours;
    planes[3] = low->eights;
    bnn_add_words(planes + 4, n - 4u, carries, count);
}

/*
 * The count of each lane as an integer: sums are base - less + scale * count,
 * or its negative where negate is all ones.  No branch depends on a value.
 */
static uint32_t *bnn_single_sums(const bnn_single_t *single, const uint32_t *planes, uint32_t group,
                                 int32_t less, int32_t scale, uint32_t negate, uint32_t *out)
{
    const uint32_t channels = single->shape.out_c - 32u * group;
    const int32_t *base = single->base + 32u * group;
    const uint32_t positive = single->relu ? 0xFFFFFFFFu : 0;

    for (uint32_t lane = 0; lane < 8u; lane++) {
        /* Four lanes at a time: a byte of each word is eight planes of one. */
        uint32_t part[BNN_SINGLE_PLANES / 8] = {0, 0, 0};
        for (uint32_t j = 0; 8u * j < single->planes; j++) {
            const uint32_t *eight = planes + 8u * j;
            uint32_t bytes = 0;
            for (uint32_t p = 8; p-- > 0;) {
                bytes = bytes << 1 | (eight[p] >> lane & 0x01010101u);
            }
            part[j] = bytes;
        }
        for (uint32_t i = 0; i < 4u && lane + 8u * i < channels; i++) {
            const uint32_t at = 8u * i;
            const uint32_t count = (part[0] >> at & 0xFFu) | (part[1] >> at & 0xFFu) << 8 |
                                   (part[2] >> at & 0xFFu) << 16;
            const uint32_t sum = (uint32_t)(base[lane + at] - less + scale * (int32_t)count);
            const uint32_t turned = (sum ^ negate) - negate;
            out[lane + at] = turned & ~((0u - (turned >> 31)) & positive);
        }
    }
    return out + (channels < 32u ? channels : 32u);
}

/* Sums are made of eight planes at a time.  (An initialiser would be a call of the C library.) */
static void bnn_no_planes(uint32_t *planes)
{
    for (uint32_t p = 0; p < BNN_SINGLE_PLANES; p++) {
        planes[p] = 0;
    }
}

/* Active channels of all taps inside. */
static uint32_t bnn_active(const bnn_shape_t *s, const bnn_window_t *at, const uint32_t *in)
{
    const uint32_t words = bnn_words(s->in_c);
    uint32_t total = 0;

    for (uint32_t ky = at->rows.first; ky < at->rows.last; ky++) {
        for (uint32_t kx = at->cols.first; kx < at->cols.last; kx++) {
            const uint32_t *from = in + bnn_position(s, at, ky, kx) * words;
            for (uint32_t i = 0; i < words; i++) {
                total += bnn_popcount(from[i]);
            }
        }
    }
    return total;
}

/* Writes the rows of four inputs; the bits 2, 10, 18 and 26 of bits SHIFT n tell which stay. */
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && defined(__GNUC__)
#define BNN_LIST4(SHIFT, n)                                                                        \
    __asm__ volatile("and %[t], %[mask], %[bits], " SHIFT " #" #n "\n\t"                           \
                     "str %[row], [%[to]]\n\t"                                                     \
                     "uxtab %[to], %[to], %[t]\n\t"                                                \
                     "add %[row], %[row], %[step]\n\t"                                             \
                     "str %[row], [%[to]]\n\t"                                                     \
                     "uxtab %[to], %[to], %[t], ror #8\n\t"                                        \
                     "add %[row], %[row], %[step]\n\t"                                             \
                     "str %[row], [%[to]]\n\t"                                                     \
                     "uxtab %[to], %[to], %[t], ror #16\n\t"                                       \
                     "add %[row], %[row], %[step]\n\t"                                             \
                     "str %[row], [%[to]]\n\t"                                                     \
                     "add %[to], %[to], %[t], lsr #24\n\t"                                         \
                     "add %[row], %[row], %[step]"                                                 \
                     : [t] "=&r"(steps), [to] "+&r"(to), [row] "+&r"(row)                          \
                     : [mask] "r"(mask), [bits] "r"(bits), [step] "r"(step)                        \
                     : "memory");
#define BNN_LIST4_LEFT(n) BNN_LIST4("lsl", n)
#define BNN_LIST4_RIGHT(n) BNN_LIST4("lsr", n)
#else
#define BNN_LIST1(bit)                                                                             \
    *(uint32_t *)(void *)to = row;                                                                 \
    row += step;                                                                                   \
    to += steps >> (bit)&0xFFu;
#define BNN_LIST4(shifted)                                                                         \
    steps = (shifted)&mask;                                                                        \
    BNN_LIST1(0)                                                                                   \
    BNN_LIST1(8)                                                                                   \
    BNN_LIST1(16)                                                                                  \
    BNN_LIST1(24)
#define BNN_LIST4_LEFT(n) BNN_LIST4(bits << (n))
#define BNN_LIST4_RIGHT(n) BNN_LIST4(bits >> (n))
#endif

/*
 * Where the rows of the active inputs begin; of the others if invert is all
 * ones.  Every input is written and then kept or not, so the instructions are
 * the same for all inputs: the list needs one word more than its length.
 *
 * The rows of a whole word of inputs lie in the order of the bits 0, 8, 16, 24,
 * 1, 9, ...: four bits are then the steps of the list, a byte each.
 */
static uint32_t *bnn_list_rows(const bnn_shape_t *s, const bnn_window_t *at, const uint32_t *in,
                               uint32_t invert, uint32_t *list)
{
    const uint32_t words = bnn_words(s->in_c), step = bnn_words(s->out_c), mask = 0x04040404u;
    uint32_t row = 0;

    for (uint32_t ky = at->rows.first; ky < at->rows.last; ky++) {
        for (uint32_t kx = at->cols.first; kx < at->cols.last; kx++) {
            const uint32_t *from = in + bnn_position(s, at, ky, kx) * words;
            uint32_t lanes = s->in_c;
            for (; lanes >= 32u; lanes -= 32u) {
                const uint32_t bits = *from++ ^ invert;
                uint8_t *to = (uint8_t *)list;
                uint32_t steps;
                BNN_LIST4_LEFT(2)
                BNN_LIST4_LEFT(1)
                BNN_LIST4_LEFT(0)
                BNN_LIST4_RIGHT(1)
                BNN_LIST4_RIGHT(2)
                BNN_LIST4_RIGHT(3)
                BNN_LIST4_RIGHT(4)
                BNN_LIST4_RIGHT(5)
                list = (uint32_t *)(void *)to;
            }
            for (uint32_t lane = 0; lane < lanes; lane++) {
                *list = row;
                row += step;
                list += (*from ^ invert) >> lane & 1u;
            }
        }
    }
    return list;
}

/* The same value in blocks of 16 words, of which there are some. */
static void bnn_fill(uint32_t *to, uint32_t value, uint32_t blocks)
{
#if defined(BNN_ADD16_ASM)
    register uint32_t *r0 __asm__("r0") = to;
    register uint32_t r1 __asm__("r1") = value;
    __asm__ volatile("mov r3, r1\n\tmov r4, r1\n\tmov r5, r1\n\tmov r6, r1\n\t"
                     "mov r8, r1\n\tmov r9, r1\n\tmov r10, r1\n"
                     "1:\n\t"
                     "stmia r0!, {r1, r3, r4, r5, r6, r8, r9, r10}\n\t"
                     "stmia r0!, {r1, r3, r4, r5, r6, r8, r9, r10}\n\t"
                     "subs %[blocks], %[blocks], #1\n\t"
                     "bne 1b"
                     : "+r"(r0), [blocks] "+r"(blocks)
                     : "r"(r1)
                     : "r3", "r4", "r5", "r6", "r8", "r9", "r10", "cc", "memory");
#else
    for (uint32_t i = 0; i < 16u * blocks; i += 8u) {
        for (uint32_t j = 0; j < 8u; j++) {
            to[i + j] = value;
        }
    }
#endif
}

static inline void bnn_single_rows(const bnn_single_t *single, const uint32_t *in,
                                   uint32_t *scratch, uint32_t *out, int padded)
{
    const bnn_shape_t *s = &single->shape;
    const uint32_t groups = bnn_words(s->out_c), n = single->planes;
    const uint32_t zeros = single->inputs * groups;
    const bnn_window_t at = bnn_window(s, 0, 0);
    uint32_t *const carries = scratch, *const list = scratch + single->blocks;
    uint32_t planes[BNN_SINGLE_PLANES];

    bnn_no_planes(planes);
    const uint32_t active = bnn_active(s, &at, in);
    /* All ones if more than half of the inputs are active: no branch. */
    const uint32_t invert = 0u - ((single->inputs / 2u - active) >> 31);
    uint32_t blocks = single->blocks;
    if (padded) {
        bnn_fill(list, zeros, blocks);
    }
    uint32_t *const end = bnn_list_rows(s, &at, in, invert, list);
    const uint32_t count = (uint32_t)(end - list);
    *end = zeros;
    if (!padded) {
        blocks = (count + 15u) / 16u;
        for (uint32_t i = count; i < 16u * blocks; i++) {
            list[i] = zeros;
        }
    }
    const uint32_t *bound = NULL, *flip = NULL;
    if (single->bound != NULL) {
        bound = single->bound + (invert & groups * (n + 1u));
        flip = single->flip + (invert & groups);
    }
    for (uint32_t group = 0; group < groups; group++) {
        uint32_t carry = 0;
        if (bound != NULL) {
            /* Not (count + bound) / 2: what is added to it reaches zero from there on. */
            uint32_t bits = count;
            for (uint32_t p = 0; p <= n; p++, bits >>= 1) {
                uint32_t sum = *bound++;
                carry = bnn_add3(&sum, 0u - (bits & 1u), carry);
                if (p > 0) {
                    planes[p - 1u] = ~sum;
                }
            }
        } else {
            for (uint32_t p = 0; p < n; p++) {
                planes[p] = 0;
            }
        }
        bnn_low_t low = {planes[0], planes[1], planes[2], planes[3]};
        bnn_add_listed(&low, list, single->rows + group, blocks, carries);
        bnn_add_high(&low, planes, n, carries, blocks);
        if (bound != NULL) {
            *out++ = planes[n - 1u] ^ flip[group];
        } else {
            out = bnn_single_sums(single, planes, group, 2 * (int32_t)count, 4, invert, out);
        }
    }
}

void bnn_single_padded(const bnn_single_t *single, const uint32_t *in, uint32_t *scratch,
                       uint32_t *out)
{
    bnn_single_rows(single, in, scratch, out, 1);
}

void bnn_single_active(const bnn_single_t *single, const uint32_t *in, uint32_t *scratch,
                       uint32_t *out)
{
    bnn_single_rows(single, in, scratch, out, 0);
}

void bnn_single_dense(const bnn_single_t *single, const uint32_t *in, uint32_t *scratch,
                      uint32_t *out)
{
    const bnn_shape_t *s = &single->shape;
    const uint32_t groups = bnn_words(s->out_c), words = bnn_words(s->in_c), n = single->planes;
    const bnn_window_t at = bnn_window(s, 0, 0);
    /* Blocks of a position, and of a row of neighbours; one at a time if halves are left out. */
    const uint32_t halves = (s->in_c + 15u) / 16u;
    uint32_t cols = at.cols.last - at.cols.first, run = 1;
    if (s->dilation_x == 1 && halves % 2u == 0) {
        run = cols;
        cols = 1;
    }
    const uint32_t *rows = single->rows;
    uint32_t planes[BNN_SINGLE_PLANES];

    bnn_no_planes(planes);
    for (uint32_t group = 0; group < groups; group++) {
        for (uint32_t p = 0; p < n; p++) {
            /* Not the bound: the sign plane is set until more than that has been added. */
            planes[p] = single->bound != NULL ? ~single->bound[group * n + p] : 0;
        }
        bnn_low_t low = {planes[0], planes[1], planes[2], planes[3]};
        uint32_t *carries = scratch;
        for (uint32_t ky = at.rows.first; ky < at.rows.last; ky++) {
            for (uint32_t i = 0; i < cols; i++) {
                const uint32_t *from = in + bnn_position(s, &at, ky, at.cols.first + i) * words;
                bnn_add_masked(&low, rows, from, run * halves, carries);
                rows += 16u * run * halves;
                carries += run * halves;
            }
        }
        bnn_add_high(&low, planes, n, scratch, single->blocks);
        if (single->bound != NULL) {
            *out++ = planes[n - 1u] ^ (single->flip != NULL ? single->flip[group] : 0);
        } else {
            out = bnn_single_sums(single, planes, group, 0, -2, 0, out);
        }
    }
}
