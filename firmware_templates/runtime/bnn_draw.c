/* The generators, and the draw of weights from their bit-planes. */
#include "bnn.h"

/*
 * The draw of 32 weights, shared by all generators: the carry chain of
 * "v + msb(v) > uniform k-bit number".  It starts from the most significant
 * plane, which makes the probabilities 0 and 1 exact.
 */
#define BNN_DRAW_WORDS(k, NEXT)                                                                    \
    for (; count > 0; count--, planes += (k)) {                                                    \
        uint32_t x = planes[(k)-1u];                                                               \
        for (unsigned j = 0; j < (k); j++) {                                                       \
            uint32_t r;                                                                            \
            NEXT;                                                                                  \
            x ^= (x ^ r) & (x ^ planes[j]);                                                        \
        }                                                                                          \
        *words++ = x;                                                                              \
    }

/* The usual numbers of planes are constants to the compiler, which unrolls their loops. */
#define BNN_DRAW(NEXT)                                                                             \
    if (k == 4) {                                                                                  \
        BNN_DRAW_WORDS(4u, NEXT)                                                                   \
    } else if (k == 6) {                                                                           \
        BNN_DRAW_WORDS(6u, NEXT)                                                                   \
    } else if (k == 8) {                                                                           \
        BNN_DRAW_WORDS(8u, NEXT)                                                                   \
    } else {                                                                                       \
        BNN_DRAW_WORDS(k, NEXT)                                                                    \
    }

#if defined(__thumb2__) && defined(__GNUC__)
#define BNN_DRAW4_XORSHIFT128
typedef struct bnn_draw4 {
    bnn_rng_t rng;
    const uint32_t *planes;
    uint32_t *words;
    size_t count;
    uint32_t pushed; /* never used: the loop pushes as much, which no compiler reports */
} bnn_draw4_t;

/* A step of the generator: a becomes the next word, d is the last one. */
#define BNN_XORSHIFT_ASM(a, d)                                                                     \
    "eor " a ", " a ", " a ", lsl #11\n\t"                                                         \
    "eor " a ", " a ", " a ", lsr #8\n\t"                                                          \
    "eor " a ", " a ", " d "\n\t"                                                                  \
    "eor " a ", " a ", " d ", lsr #19\n\t"
/* lr = majority(x, r, plane); the plane is lost, r0 is used. */
#define BNN_MAJORITY_ASM(x, r, plane)                                                              \
    "eor " plane ", " plane ", " x "\n\t"                                                          \
    "eor r0, " x ", " r "\n\t"                                                                     \
    "and r0, r0, " plane "\n\t"                                                                    \
    "eor lr, " x ", r0\n\t"

/*
 * Four planes, the default, in assembly: all state and all planes in registers.
 * r7 is left alone, as it may hold the frame.
 */
static void bnn_draw4_xorshift128(bnn_draw4_t *draw)
{
    register bnn_draw4_t *r0 __asm__("r0") = draw;
    __asm__ volatile("push {r0}\n\t"
                     "ldmia r0, {r1, r2, r3, r4, r5, r6, r8}\n"
                     "1:\n\t"
                     "ldmia r5!, {r9, r10, r11, r12}\n\t"
                     BNN_XORSHIFT_ASM("r1", "r4") BNN_MAJORITY_ASM("r12", "r1", "r9")
                     BNN_XORSHIFT_ASM("r2", "r1") BNN_MAJORITY_ASM("lr", "r2", "r10")
                     BNN_XORSHIFT_ASM("r3", "r2") BNN_MAJORITY_ASM("lr", "r3", "r11")
                     BNN_XORSHIFT_ASM("r4", "r3") BNN_MAJORITY_ASM("lr", "r4", "r12")
                     "str lr, [r6], #4\n\t"
                     "subs r8, r8, #1\n\t"
                     "bne 1b\n\t"
                     "pop {r0}\n\t"
                     "stmia r0, {r1, r2, r3, r4}"
                     : "+r"(r0)
                     :
                     : "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr",
                       "cc", "memory");
}
#endif

void bnn_draw_xorshift128(bnn_rng_t *rng, const uint32_t *planes, unsigned k, uint32_t *words,
                          size_t count)
{
#if defined(BNN_DRAW4_XORSHIFT128)
    if (k == 4 && count != 0) {
        bnn_draw4_t draw = {*rng, planes, words, count, 0};
        bnn_draw4_xorshift128(&draw);
        *rng = draw.rng;
        return;
    }
#endif
    uint32_t s0 = rng->s[0], s1 = rng->s[1], s2 = rng->s[2], s3 = rng->s[3];

    BNN_DRAW({
        const uint32_t t = s0 ^ (s0 << 11);
        s0 = s1;
        s1 = s2;
        s2 = s3;
        s3 = s3 ^ (s3 >> 19) ^ t ^ (t >> 8);
        r = s3;
    })
    rng->s[0] = s0;
    rng->s[1] = s1;
    rng->s[2] = s2;
    rng->s[3] = s3;
}

/* One step of a Tausworthe component: keeps the bits of mask, feeds back the rest. */
#define BNN_TAUSWORTHE(z, mask, a, b, c) ((((z) & (mask)) << (c)) ^ ((((z) << (a)) ^ (z)) >> (b)))

void bnn_draw_lfsr113(bnn_rng_t *rng, const uint32_t *planes, unsigned k, uint32_t *words,
                      size_t count)
{
    uint32_t s0 = rng->s[0], s1 = rng->s[1], s2 = rng->s[2], s3 = rng->s[3];

    BNN_DRAW({
        s0 = BNN_TAUSWORTHE(s0, 0xFFFFFFFEu, 6, 13, 18);
        s1 = BNN_TAUSWORTHE(s1, 0xFFFFFFF8u, 2, 27, 2);
        s2 = BNN_TAUSWORTHE(s2, 0xFFFFFFF0u, 13, 21, 7);
        s3 = BNN_TAUSWORTHE(s3, 0xFFFFFF80u, 3, 12, 13);
        r = s0 ^ s1 ^ s2 ^ s3;
    })
    rng->s[0] = s0;
    rng->s[1] = s1;
    rng->s[2] = s2;
    rng->s[3] = s3;
}

void bnn_draw_taus88(bnn_rng_t *rng, const uint32_t *planes, unsigned k, uint32_t *words,
                     size_t count)
{
    uint32_t s0 = rng->s[0], s1 = rng->s[1], s2 = rng->s[2];

    BNN_DRAW({
        s0 = BNN_TAUSWORTHE(s0, 0xFFFFFFFEu, 13, 19, 12);
        s1 = BNN_TAUSWORTHE(s1, 0xFFFFFFF8u, 2, 25, 4);
        s2 = BNN_TAUSWORTHE(s2, 0xFFFFFFF0u, 3, 11, 17);
        r = s0 ^ s1 ^ s2;
    })
    rng->s[0] = s0;
    rng->s[1] = s1;
    rng->s[2] = s2;
}
