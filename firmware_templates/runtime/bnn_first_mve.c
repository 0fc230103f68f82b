/* Convolutions of pixels with int16 weights, eight products at a time. */
#include "bnn_first_mve.h"

#include "bnn_internal.h"
#include "bnn_vector_mve.h"

/* Words from the sums of one filter to those of the next. */
#define BNN_SUMS 8u

/* Copies eight bytes. */
static inline void bnn_copy_chunk(uint8_t *to, const uint8_t *from)
{
#if defined(BNN_HELIUM)
    vstrbq_u16(to, vldrbq_u16(from));
#else
    for (uint32_t i = 0; i < 8u; i++) {
        to[i] = from[i];
    }
#endif
}

/*
 * Adds the products of a chunk of seven windows, which are pitch bytes apart,
 * with the weights of every filter to its seven sums; with kept zero these begin
 * from nothing.  What the eighth word of the sums holds means nothing.
 */
static void bnn_add_chunk(const uint8_t *windows, uint32_t pitch, const int16_t *weights,
                          uint32_t *sums, uint32_t filters, int kept)
{
#if defined(BNN_HELIUM) && defined(__GNUC__)
    register const uint8_t *r0 __asm__("r0") = windows;
    register uint32_t *r1 __asm__("r1") = sums;
    register uint32_t r2 __asm__("r2") = pitch;
    register const int16_t *r3 __asm__("r3") = weights;
    register uint32_t r5 __asm__("r5") = filters;
    /* In assembly, as a compiler would not keep sums in pairs of registers from ldm to stm. */
#define BNN_LOAD_WINDOW(q) "vldrb.u16 " q ", [r0]\n\tadd r0, r0, r2\n\t"
#define BNN_CHUNKS(BEGIN, MAC)                                                                     \
    __asm__ volatile(BNN_LOAD_WINDOW("q0") BNN_LOAD_WINDOW("q1") BNN_LOAD_WINDOW("q2")             \
                         BNN_LOAD_WINDOW("q3") BNN_LOAD_WINDOW("q4") BNN_LOAD_WINDOW("q5")         \
                         "vldrb.u16 q6, [r0]\n\t"                                                  \
                         "dls lr, r5\n"                                                            \
                         "1:\n\t"                                                                  \
                         "vldrh.u16 q7, [r3], #16\n\t" BEGIN                                       \
                         MAC " r0, q0, q7\n\t" MAC " r2, q1, q7\n\t" MAC " r4, q2, q7\n\t"         \
                         MAC " r6, q3, q7\n\t" MAC " r8, q4, q7\n\t" MAC " r10, q5, q7\n\t"        \
                         MAC " r12, q6, q7\n\t"                                                    \
                         "stmia r1!, {r0, r2, r4, r6, r8, r10, r12, lr}\n\t"                       \
                         "le lr, 1b"                                                               \
                     : "+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3), "+r"(r5)                            \
                     :                                                                             \
                     : "r4", "r6", "r8", "r10", "r12", "lr", "q0", "q1", "q2", "q3", "q4", "q5",   \
                       "q6", "q7", "cc", "memory")
    if (kept) {
        BNN_CHUNKS("ldmia r1, {r0, r2, r4, r6, r8, r10, r12}\n\t", "vmladava.s16");
    } else {
        BNN_CHUNKS("", "vmladav.s16");
    }
#else
    for (; filters > 0; filters--, weights += 8, sums += BNN_SUMS) {
        const uint8_t *from = windows;
        for (uint32_t i = 0; i < BNN_FIRST_MVE_WINDOWS; i++, from += pitch) {
            uint32_t sum = kept ? sums[i] : 0;
            for (uint32_t j = 0; j < 8u; j++) {
                sum += (uint32_t)((int32_t)from[j] * weights[j]);
            }
            sums[i] = sum;
        }
    }
#endif
}

/* Every pixel that a window sees, with what the padding stands for; returns the bytes of a row. */
static uint32_t bnn_pad_image(const bnn_first_mve_t *first, const uint8_t *in, uint8_t *to)
{
    const bnn_shape_t *s = &first->shape;
    const uint32_t rows = (s->out_h - 1u) * s->stride_y + (s->kernel_h - 1u) * s->dilation_y + 1u;
    const uint32_t cols = (s->out_w - 1u) * s->stride_x + (s->kernel_w - 1u) * s->dilation_x + 1u;
    const uint32_t channels = s->in_c, before = s->pad_x < cols ? s->pad_x : cols;
    const uint32_t inside = s->in_w < cols - before ? s->in_w : cols - before;

    for (uint32_t row = 0; row < rows; row++) {
        const uint32_t y = row - s->pad_y, here = y < s->in_h ? inside : 0;
        const uint8_t *from = in + (size_t)(here != 0 ? y : 0) * s->in_w * channels;
        for (uint32_t col = 0; col < cols - here; col++) {
            /* The columns before and behind those inside. */
            uint8_t *at = to + (col < before ? col : col + here) * channels;
            for (uint32_t c = 0; c < channels; c++) {
                at[c] = first->fill != NULL ? first->fill[c] : 0;
            }
        }
        uint8_t *at = to + before * channels;
        for (uint32_t i = 0; i < here * channels; i++) {
            at[i] = from[i];
        }
        to += cols * channels;
    }
    return cols * channels;
}

/* Runs of some bytes, from places that are step apart; up to seven bytes more are written. */
static inline uint8_t *bnn_take_runs(uint8_t *to, const uint8_t *from, uint32_t runs,
                                     uint32_t bytes, uint32_t step)
{
    do {
        uint32_t i = 0;
        do {
            bnn_copy_chunk(to + i, from + i);
            i += 8u;
        } while (i < bytes);
        from += step;
        to += bytes;
    } while (--runs > 0);
    return to;
}

/* One window, its rows behind each other. */
static void bnn_take_window(const bnn_shape_t *s, const uint8_t *from, uint32_t row, uint8_t *to)
{
    const uint32_t step = row * s->dilation_y, pixel = s->in_c;

    if (s->dilation_x == 1) {
        bnn_take_runs(to, from, s->kernel_h, s->kernel_w * pixel, step);
        return;
    }
    for (uint32_t ky = 0; ky < s->kernel_h; ky++, from += step) {
        to = bnn_take_runs(to, from, s->kernel_w, pixel, s->dilation_x * pixel);
    }
}

/* The signs of sums with their bias, as bits of filters: a word for each of eight windows. */
static void bnn_sum_signs(const uint32_t *sums, const int32_t *bias, uint32_t filters,
                          uint32_t flip, uint32_t *words)
{
    bnn_vec_t low = bnn_vec_all(0), high = low;

    sums += BNN_SUMS * filters;
    for (uint32_t i = filters; i-- > 0;) {
        const uint32_t own = (uint32_t)bias[i];
        sums -= BNN_SUMS;
        const bnn_vec_t a = bnn_vec_add(bnn_vec_load(sums), own);
        const bnn_vec_t b = bnn_vec_add(bnn_vec_load(sums + 4), own);
        low = bnn_vec_shift_in(low, a);
        high = bnn_vec_shift_in(high, b);
    }
    bnn_vec_store(words, bnn_vec_xor(low, bnn_vec_all(flip)));
    bnn_vec_store(words + 4, bnn_vec_xor(high, bnn_vec_all(flip)));
}

/* What becomes of the sums of some positions, of which the first is given. */
static void bnn_put_sums(const bnn_first_mve_t *first, const uint32_t *sums, uint32_t position,
                         uint32_t count, uint32_t *out)
{
    const uint32_t filters = first->shape.out_c, words = bnn_words(filters);
    const uint32_t drop = first->relu ? 0xFFFFFFFFu : 0;

    if (first->bias == NULL) {
        for (uint32_t i = 0; i < count; i++) {
            uint32_t *to = out + (size_t)(position + i) * filters;
            for (uint32_t f = 0; f < filters; f++) {
                const uint32_t sum = sums[BNN_SUMS * f + i];
                to[f] = sum & ~((0u - (sum >> 31)) & drop);
            }
        }
        return;
    }
    for (uint32_t w = 0; w < words; w++) {
        const uint32_t left = filters - 32u * w;
        uint32_t bits[BNN_SUMS];
        bnn_sum_signs(sums + 32u * BNN_SUMS * w, first->bias + 32u * w, left < 32u ? left : 32u,
                      first->flip[w], bits);
        for (uint32_t i = 0; i < count; i++) {
            out[(position + i) * words + w] = bits[i];
        }
    }
}

void bnn_first_vectors(const bnn_first_mve_t *first, const uint8_t *in, uint32_t *scratch,
                       uint32_t *out)
{
    const bnn_shape_t *s = &first->shape;
    const uint32_t positions = (uint32_t)s->out_h * s->out_w, pitch = 8u * first->chunks;
    const uint32_t filters = s->out_c;
    uint32_t *const sums = scratch;
    uint8_t *const windows = (uint8_t *)(sums + BNN_SUMS * filters);
    uint8_t *const image = windows + BNN_FIRST_MVE_WINDOWS * pitch + 8u;
    const uint32_t row = bnn_pad_image(first, in, image);
    uint32_t oy = 0, ox = 0;

    for (uint32_t done = 0; done < positions; done += BNN_FIRST_MVE_WINDOWS) {
        const uint32_t left = positions - done;
        const uint32_t count = left < BNN_FIRST_MVE_WINDOWS ? left : BNN_FIRST_MVE_WINDOWS;
        for (uint32_t i = 0; i < count; i++) {
            const uint8_t *from = image + (size_t)oy * s->stride_y * row;
            bnn_take_window(s, from + ox * s->stride_x * s->in_c, row, windows + i * pitch);
            if (++ox == s->out_w) {
                ox = 0;
                oy++;
            }
        }
        const int16_t *weights = first->weights;
        for (uint32_t k = 0; k < first->chunks; k++, weights += 8u * filters) {
            bnn_add_chunk(windows + 8u * k, pitch, weights, sums, filters, k != 0);
        }
        bnn_put_sums(first, sums, done, count, out);
    }
}
