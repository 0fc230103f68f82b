/* Convolutions of signs with signs. */
#include "bnn_internal.h"

#if defined(__thumb2__) && !defined(BNN_PORTABLE)
#include "bnn_count_thumb2.h"
#define BNN_THUMB2 1
#endif

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

#if defined(__POPCNT__) && defined(__x86_64__) && !defined(BNN_PORTABLE)
    /* A host that counts bits in one instruction: pairs of words, then the last one below. */
    uint64_t pairs = 0;
    for (; n >= 2; n -= 2, a += 2, w += 2) {
        uint64_t two, other;
        __builtin_memcpy(&two, a, sizeof two);
        __builtin_memcpy(&other, w, sizeof other);
        pairs += (uint64_t)__builtin_popcountll(two ^ other);
    }
    return (uint32_t)pairs + (n != 0 ? bnn_popcount(*a ^ *w) : 0);
#endif
#ifdef BNN_THUMB2
    if (n >= 16) {
        const uint32_t sixteens = n / 16u;
        uint32_t planes[4];
        total = bnn_count_sixteens(a, w, sixteens, planes);
        ones = planes[0];
        twos = planes[1];
        fours = planes[2];
        eights = planes[3];
        a += 16u * sixteens;
        w += 16u * sixteens;
        n %= 16u;
    }
#else
    for (; n >= 16; n -= 16, a += 16, w += 16) {
        const uint32_t e0 = bnn_eight(a, w, &ones, &twos, &fours);
        const uint32_t e1 = bnn_eight(a + 8, w + 8, &ones, &twos, &fours);
        total += bnn_popcount(bnn_carry_save(&eights, e0, e1));
    }
#endif
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

static uint32_t *bnn_zeros(uint32_t *to, uint32_t words)
{
    for (; words > 0; words--) {
        *to++ = 0;
    }
    return to;
}

static uint32_t *bnn_copy(uint32_t *to, const uint32_t *from, uint32_t words)
{
    for (; words > 0; words--) {
        *to++ = *from++;
    }
    return to;
}

/* Copies count bits that begin at bit first of from, to the beginning of a word. */
static uint32_t *bnn_extract(uint32_t *to, const uint32_t *from, uint32_t first, uint32_t count)
{
    const uint32_t shift = first % 32u;

    from += first / 32u;
    for (;; count -= 32u, from++) {
        uint32_t word = from[0] >> shift;
        /* The next word is read only where bits of it are wanted. */
        if (shift != 0 && shift + count > 32u) {
            word |= from[1] << (32u - shift);
        }
        if (count <= 32u) {
            *to++ = word & 0xFFFFFFFFu >> (32u - count);
            return to;
        }
        *to++ = word;
    }
}

/*
 * Copies one window of the channels from first on, as many as a filter reads;
 * what lies in the padding becomes zero words.  Returns the number of taps
 * inside the input, in bits.
 */
static int32_t bnn_gather(const bnn_shape_t *s, const uint32_t *in, uint32_t oy, uint32_t ox,
                          uint32_t first, uint32_t inputs, uint32_t *window)
{
    const uint32_t stored = bnn_words(s->in_c), words = bnn_words(inputs);
    const bnn_window_t at = bnn_window(s, oy, ox);
    const uint32_t inside = at.cols.last - at.cols.first;
    const uint32_t step = s->dilation_x * stored;

    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        if (ky < at.rows.first || ky >= at.rows.last || inside == 0) {
            window = bnn_zeros(window, s->kernel_w * words);
            continue;
        }
        const uint32_t *from = in + bnn_position(s, &at, ky, at.cols.first) * stored;
        window = bnn_zeros(window, at.cols.first * words);
        if (inputs != s->in_c) {
            for (uint32_t i = 0; i < inside; i++) {
                window = bnn_extract(window, from + i * step, first, inputs);
            }
        } else if (s->dilation_x == 1) {
            window = bnn_copy(window, from, inside * words);
        } else {
            for (uint32_t i = 0; i < inside; i++) {
                window = bnn_copy(window, from + i * step, words);
            }
        }
        window = bnn_zeros(window, (s->kernel_w - at.cols.last) * words);
    }
    return (int32_t)(bnn_taps(&at) * inputs);
}

/*
 * A zero word in the padding mismatches every set weight bit there.  Padding
 * stands for nothing at all, so these are counted to be taken off again.
 */
static uint32_t bnn_padding_mismatches(const bnn_shape_t *s, const uint32_t *w, uint32_t words,
                                       uint32_t oy, uint32_t ox)
{
    const bnn_window_t at = bnn_window(s, oy, ox);
    uint32_t total = 0;

    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < s->kernel_w; kx++, w += words) {
            if (!bnn_is_inside(&at, ky, kx)) {
                for (uint32_t i = 0; i < words; i++) {
                    total += bnn_popcount(w[i]);
                }
            }
        }
    }
    return total;
}

void bnn_conv_bits(const bnn_conv_bits_t *conv, const uint32_t *in, uint32_t *scratch,
                   uint32_t *out)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t inputs = (uint32_t)s->in_c / s->groups;
    const uint32_t filters = (uint32_t)s->out_c / s->groups;
    const uint32_t kernel = (uint32_t)s->kernel_h * s->kernel_w;
    const uint32_t words = kernel * bnn_words(inputs);
    const int32_t all = (int32_t)(kernel * inputs);
    uint32_t position = 0;

    bnn_clear(&conv->output, s, out);
    for (uint32_t oy = 0; oy < s->out_h; oy++) {
        for (uint32_t ox = 0; ox < s->out_w; ox++, position++) {
            const uint32_t *w = conv->weights;
            uint32_t channel = 0;
            for (uint32_t group = 0; group < s->groups; group++) {
                const int32_t taps = bnn_gather(s, in, oy, ox, group * inputs, inputs, scratch);
                for (uint32_t filter = 0; filter < filters; filter++, channel++, w += words) {
                    uint32_t mismatches = bnn_mismatches(scratch, w, words);
                    if (taps != all) {
                        mismatches -= bnn_padding_mismatches(s, w, bnn_words(inputs), oy, ox);
                    }
                    const int32_t sum = taps - 2 * (int32_t)mismatches;
                    bnn_store(&conv->output, s, out, position, channel, sum);
                }
            }
        }
    }
    bnn_flip(&conv->output, s, out);
}

void bnn_conv_drawn(const bnn_conv_bits_t *conv, const uint32_t *in, uint32_t *scratch,
                    uint32_t *out, bnn_rng_t *rng, bnn_draw_t draw, unsigned planes)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t inputs = (uint32_t)s->in_c / s->groups;
    const uint32_t filters = (uint32_t)s->out_c / s->groups;
    const uint32_t kernel = (uint32_t)s->kernel_h * s->kernel_w;
    const uint32_t words = kernel * bnn_words(inputs);
    uint32_t *const drawn = scratch;
    uint32_t *const windows = scratch + words;
    const uint32_t *weights = conv->weights;

    /* Filters are the outer loop, as each is drawn once and met by every position. */
    bnn_clear(&conv->output, s, out);
    for (uint32_t channel = 0; channel < s->out_c; channel++) {
        if (channel % filters == 0) {
            uint32_t *window = windows;
            for (uint32_t oy = 0; oy < s->out_h; oy++) {
                for (uint32_t ox = 0; ox < s->out_w; ox++, window += words) {
                    (void)bnn_gather(s, in, oy, ox, channel / filters * inputs, inputs, window);
                }
            }
        }
        draw(rng, weights, planes, drawn, words);
        weights += (size_t)words * planes;
        const uint32_t *window = windows;
        uint32_t position = 0;
        for (uint32_t oy = 0; oy < s->out_h; oy++) {
            for (uint32_t ox = 0; ox < s->out_w; ox++, position++, window += words) {
                const bnn_window_t at = bnn_window(s, oy, ox);
                const uint32_t taps = bnn_taps(&at);
                uint32_t mismatches = bnn_mismatches(window, drawn, words);
                if (taps != kernel) {
                    mismatches -= bnn_padding_mismatches(s, drawn, bnn_words(inputs), oy, ox);
                }
                const int32_t sum = (int32_t)(taps * inputs) - 2 * (int32_t)mismatches;
                bnn_store(&conv->output, s, out, position, channel, sum);
            }
        }
    }
    bnn_flip(&conv->output, s, out);
}

/* Adds 2 to the count in those lanes whose bit in carry is set: a ripple through the planes. */
static inline void bnn_count_two(uint32_t *count, uint32_t planes, uint32_t carry)
{
    for (uint32_t i = 1; i < planes; i++) {
        const uint32_t next = count[i] & carry;
        count[i] ^= carry;
        carry = next;
    }
}

/* Lanes whose count is at most the limit. */
static inline uint32_t bnn_at_most(const uint32_t *count, const uint32_t *limit, uint32_t planes)
{
    uint32_t above = 0, equal = 0xFFFFFFFFu;

    for (uint32_t i = planes; i-- > 0;) {
        above |= equal & count[i] & ~limit[i];
        equal &= ~(count[i] ^ limit[i]);
    }
    return ~above;
}

void bnn_conv_lanes(const bnn_conv_lanes_t *conv, const uint32_t *in, uint32_t *out)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t words = bnn_words(s->in_c), planes = conv->planes;
    const uint32_t kernel = (uint32_t)s->kernel_h * s->kernel_w;
    uint32_t count[BNN_LANE_PLANES];

    for (uint32_t oy = 0; oy < s->out_h; oy++) {
        for (uint32_t ox = 0; ox < s->out_w; ox++) {
            const bnn_window_t at = bnn_window(s, oy, ox);
            const uint32_t outside = kernel - bnn_taps(&at);
            for (uint32_t i = 0; i < words; i++) {
                for (uint32_t j = 0; j < planes; j++) {
                    count[j] = (outside >> j & 1u) != 0 ? 0xFFFFFFFFu : 0;
                }
                for (uint32_t ky = at.rows.first; ky < at.rows.last; ky++) {
                    for (uint32_t kx = at.cols.first; kx < at.cols.last; kx++) {
                        const uint32_t w = conv->weights[(ky * s->kernel_w + kx) * words + i];
                        const uint32_t a = in[bnn_position(s, &at, ky, kx) * words + i];
                        bnn_count_two(count, planes, a ^ w);
                    }
                }
                if (conv->limit != NULL) {
                    const uint32_t bits = bnn_at_most(count, conv->limit + i * planes, planes);
                    *out++ = conv->flip != NULL ? bits ^ conv->flip[i] : bits;
                    continue;
                }
                for (uint32_t lane = 0; lane < 32u && 32u * i + lane < s->out_c; lane++) {
                    uint32_t total = 0;
                    for (uint32_t j = 0; j < planes; j++) {
                        total |= (count[j] >> lane & 1u) << j;
                    }
                    const int32_t sum = (int32_t)kernel - (int32_t)total;
                    *out++ = bnn_rectified(sum, conv->relu);
                }
            }
        }
    }
}
