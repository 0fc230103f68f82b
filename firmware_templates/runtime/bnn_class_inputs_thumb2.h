/*
 * The inner loops of bnn_class_inputs.c for Thumb-2.  Each does what the C
 * function of its name does; not part of the interface.
 */
#ifndef BNN_CLASS_INPUTS_THUMB2_H
#define BNN_CLASS_INPUTS_THUMB2_H

#include <stdint.h>

#define BNN_NAKED __attribute__((naked, noinline, unused)) static
#define BNN_UNUSED __attribute__((unused))

/* The high bits of a's fields change places with the low bits of b's. */
#define BNN_SWAP(a, b, step, mask)                                                                 \
    "eor r12, " b ", " a ", lsr #" step "\n"                                                       \
    "and r12, r12, #" mask "\n"                                                                    \
    "eor " b ", " b ", r12\n"                                                                      \
    "eor " a ", " a ", r12, lsl #" step "\n"

/* The same of halves, with what a becomes in t. */
#if defined(__ARM_FEATURE_DSP)
#define BNN_SWAP_HALVES(a, b, t)                                                                   \
    "pkhbt " t ", " a ", " b ", lsl #16\n"                                                         \
    "pkhtb " b ", " b ", " a ", asr #16\n"
#else
#define BNN_SWAP_HALVES(a, b, t)                                                                   \
    "eor " t ", " b ", " a ", lsr #16\n"                                                           \
    "uxth " t ", " t "\n"                                                                          \
    "eor " b ", " b ", " t "\n"                                                                    \
    "eor " t ", " a ", " t ", lsl #16\n"
#endif

/* The last three steps of a transposition on eight rows. */
#define BNN_NEAR                                                                                   \
    BNN_SWAP("r4", "r8", "4", "0x0F0F0F0F")                                                        \
    BNN_SWAP("r5", "r9", "4", "0x0F0F0F0F")                                                        \
    BNN_SWAP("r6", "r10", "4", "0x0F0F0F0F")                                                       \
    BNN_SWAP("r7", "r11", "4", "0x0F0F0F0F")                                                       \
    BNN_SWAP("r4", "r6", "2", "0x33333333")                                                        \
    BNN_SWAP("r5", "r7", "2", "0x33333333")                                                        \
    BNN_SWAP("r8", "r10", "2", "0x33333333")                                                       \
    BNN_SWAP("r9", "r11", "2", "0x33333333")                                                       \
    BNN_SWAP("r4", "r5", "1", "0x55555555")                                                        \
    BNN_SWAP("r6", "r7", "1", "0x55555555")                                                        \
    BNN_SWAP("r8", "r9", "1", "0x55555555")                                                        \
    BNN_SWAP("r10", "r11", "1", "0x55555555")

BNN_NAKED void bnn_collect(uint32_t *block BNN_UNUSED, const uint32_t *base BNN_UNUSED,
                           const uint32_t *lane BNN_UNUSED)
{
    __asm volatile("push {r4-r8, lr}\n"
                   "mov lr, #8\n"
                   "1:\n"
                   "ldr r4, [r2, #32]\n"
                   "ldr r5, [r2, #64]\n"
                   "ldr r6, [r2, #96]\n"
                   "ldr r3, [r2], #4\n"
                   "ldr r4, [r1, r4, lsl #2]\n"
                   "ldr r5, [r1, r5, lsl #2]\n"
                   "ldr r6, [r1, r6, lsl #2]\n"
                   "ldr r3, [r1, r3, lsl #2]\n"
                   BNN_SWAP_HALVES("r3", "r5", "r7")
                   BNN_SWAP_HALVES("r4", "r6", "r8")
                   BNN_SWAP("r7", "r8", "8", "0x00FF00FF")
                   BNN_SWAP("r5", "r6", "8", "0x00FF00FF")
                   "str r8, [r0, #32]\n"
                   "str r5, [r0, #64]\n"
                   "str r6, [r0, #96]\n"
                   "str r7, [r0], #4\n"
                   "subs lr, lr, #1\n"
                   "bne 1b\n"
                   "pop {r4-r8, pc}\n");
}

BNN_NAKED void bnn_finish(uint32_t *block BNN_UNUSED)
{
    __asm volatile("push {r4-r11, lr}\n"
                   "mov lr, #4\n"
                   "1:\n"
                   "ldmia r0, {r4-r11}\n" BNN_NEAR
                   "stmia r0!, {r4-r11}\n"
                   "subs lr, lr, #1\n"
                   "bne 1b\n"
                   "pop {r4-r11, pc}\n");
}

#define BNN_PUT(row)                                                                               \
    "and r12, " row ", r3\n"                                                                       \
    "bic lr, r3, " row "\n"                                                                        \
    "strd r12, lr, [r0], #8\n"

#define BNN_PUT_ALL(row)                                                                           \
    "mvn lr, " row "\n"                                                                            \
    "strd " row ", lr, [r0], #8\n"

BNN_NAKED uint32_t *bnn_put_block(uint32_t *x BNN_UNUSED, const uint32_t *block BNN_UNUSED,
                                  uint32_t count BNN_UNUSED, uint32_t inside BNN_UNUSED)
{
    __asm volatile("push {r4-r11, lr}\n"
                   "add r12, r0, r2, lsl #3\n"
                   "push {r12}\n"
                   "adds r12, r3, #1\n"
                   "beq 2f\n"
                   "1:\n"
                   "ldmia r1!, {r4-r11}\n" BNN_NEAR BNN_PUT("r4") BNN_PUT("r5") BNN_PUT("r6")
                   BNN_PUT("r7") BNN_PUT("r8") BNN_PUT("r9") BNN_PUT("r10") BNN_PUT("r11")
                   "subs r2, r2, #8\n"
                   "bhi 1b\n"
                   "pop {r0}\n"
                   "pop {r4-r11, pc}\n"
                   "2:\n" /* all lanes are inside */
                   "ldmia r1!, {r4-r11}\n" BNN_NEAR BNN_PUT_ALL("r4") BNN_PUT_ALL("r5")
                   BNN_PUT_ALL("r6") BNN_PUT_ALL("r7") BNN_PUT_ALL("r8") BNN_PUT_ALL("r9")
                   BNN_PUT_ALL("r10") BNN_PUT_ALL("r11")
                   "subs r2, r2, #8\n"
                   "bhi 2b\n"
                   "pop {r0}\n"
                   "pop {r4-r11, pc}\n");
}

/* One input of bnn_put_shifts. */
#define BNN_SHIFTED                                                                                \
    "ldrd %[a], %[b], [%[plane]]\n"                                                                \
    "add %[plane], %[plane], %[pitch]\n"                                                           \
    "lsr %[a], %[a], %[low]\n"                                                                     \
    "lsl %[b], %[b], %[high]\n"                                                                    \
    "orr %[a], %[a], %[b]\n"                                                                       \
    "bic %[b], %[inside], %[a]\n"                                                                  \
    "and %[a], %[a], %[inside]\n"                                                                  \
    "strd %[a], %[b], [%[x]], #8\n"

/* bnn_put_shifted with shift 1 to 31. */
static inline uint32_t *bnn_put_shifts(uint32_t *x, const uint32_t *plane, uint32_t pitch,
                                       uint32_t count, uint32_t shift, uint32_t inside)
{
    uint32_t a, b;
    uint32_t pairs = count / 2u;

    if (count % 2u != 0) {
        __asm volatile(BNN_SHIFTED
                       : [x] "+r"(x), [plane] "+r"(plane), [a] "=&r"(a), [b] "=&r"(b)
                       : [pitch] "r"(4u * pitch), [low] "r"(shift), [high] "r"(32u - shift),
                         [inside] "r"(inside)
                       : "memory");
    }
    if (pairs != 0) {
        __asm volatile("1:\n" BNN_SHIFTED BNN_SHIFTED
                       "subs %[pairs], %[pairs], #1\n"
                       "bne 1b\n"
                       : [x] "+r"(x), [plane] "+r"(plane), [pairs] "+r"(pairs), [a] "=&r"(a),
                         [b] "=&r"(b)
                       : [pitch] "r"(4u * pitch), [low] "r"(shift), [high] "r"(32u - shift),
                         [inside] "r"(inside)
                       : "memory", "cc");
    }
    return x;
}

#endif
