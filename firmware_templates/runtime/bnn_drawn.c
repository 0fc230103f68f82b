/* One output position with drawn weights: filter by filter, drawn and used at once. */
#include "bnn_drawn.h"

#include "bnn_adders.h"
#include "bnn_internal.h"

/* Adds the differing bits of blocks of 16 words; a carry for each block. */
static inline void bnn_add_differing(bnn_low_t *low, const uint32_t *a, const uint32_t *b,
                                     uint32_t blocks, uint32_t *carries)
{
#if defined(BNN_ADD16_ASM)
#define BNN_DIFFERING_ASM(r, n) "ldr r2, [r1], #4\n\teor " r ", " r ", r2\n\t"
    bnn_adding_t adding = {*low, a, b, carries, carries + blocks, {0}};
    register bnn_adding_t *r0 __asm__("r0") = &adding;
    __asm__ volatile(BNN_ENTER_ASM
                     "1:\n\t" BNN_ADD16_ASM(BNN_LOAD4_ASM, BNN_LOAD2_ASM, BNN_DIFFERING_ASM)
                     BNN_LEAVE_ASM
                     : "+r"(r0)
                     :
                     : BNN_CLOBBERED);
    *low = adding.low;
#else
    for (uint32_t i = 0; i < blocks; i++, a += 16, b += 16) {
#define BNN_DIFFERING(r) (a[r] ^ b[r])
        BNN_ADD16(*low, BNN_DIFFERING, carries[i]);
    }
#endif
}

static uint32_t bnn_differing(const uint32_t *a, const uint32_t *b, uint32_t words,
                              uint32_t *carries)
{
    const uint32_t blocks = words / 16u, rest = words % 16u;
    bnn_low_t low = {0, 0, 0, 0};
    uint32_t total = 0;

    if (blocks != 0) {
        bnn_add_differing(&low, a, b, blocks, carries);
        a += 16u * blocks;
        b += 16u * blocks;
    }
    for (uint32_t i = 0; i < blocks; i++) {
        total += bnn_popcount(carries[i]);
    }
    total = 2u * total + bnn_popcount(low.eights);
    total = 2u * total + bnn_popcount(low.fours);
    total = 2u * total + bnn_popcount(low.twos);
    total = 2u * total + bnn_popcount(low.ones);
    for (uint32_t i = 0; i < rest; i++) {
        total += bnn_popcount(a[i] ^ b[i]);
    }
    return total;
}

void bnn_conv_drawn_single(const bnn_conv_bits_t *conv, const uint32_t *in, uint32_t *scratch,
                           uint32_t *out, bnn_rng_t *rng, bnn_draw_t draw, unsigned planes)
{
    const bnn_shape_t *s = &conv->shape;
    const bnn_window_t at = bnn_window(s, 0, 0);
    const uint32_t words = bnn_words(s->in_c);
    const uint32_t size = (uint32_t)s->kernel_h * s->kernel_w * words;
    const int32_t inputs = (int32_t)((uint32_t)s->kernel_h * s->kernel_w * s->in_c);
    uint32_t *const drawn = scratch, *const window = scratch + size;
    uint32_t *to = window;

    for (uint32_t ky = 0; ky < s->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < s->kernel_w; kx++) {
            const uint32_t *from = in + bnn_position(s, &at, ky, kx) * words;
            for (uint32_t i = 0; i < words; i++) {
                *to++ = *from++;
            }
        }
    }
    const uint32_t *weights = conv->weights;
    uint32_t bits = 0;
    for (uint32_t channel = 0; channel < s->out_c; channel++) {
        draw(rng, weights, planes, drawn, size);
        weights += (size_t)size * planes;
        const int32_t sum = inputs - 2 * (int32_t)bnn_differing(window, drawn, size, to);
        if (conv->output.threshold == NULL) {
            *out++ = bnn_rectified(sum, conv->output.relu);
            continue;
        }
        bits |= (1u ^ bnn_less(sum, conv->output.threshold[channel])) << (channel % 32u);
        if (channel % 32u == 31u || channel + 1u == s->out_c) {
            *out++ = conv->output.flip != NULL ? bits ^ conv->output.flip[channel / 32u] : bits;
            bits = 0;
        }
    }
}
