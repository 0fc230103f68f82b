/*
 * The inner loop of bnn_mismatches for Thumb-2; not part of the interface.
 */
#ifndef BNN_COUNT_THUMB2_H
#define BNN_COUNT_THUMB2_H

#include <stdint.h>

/* sum gets sum + a + b, the carry goes to a; lr and b are overwritten. */
#define BNN_COUNT_FA(sum, a, b)                                                                    \
    "eor lr, " sum ", " a "\n"                                                                     \
    "and " a ", " a ", " sum "\n"                                                                  \
    "eor " sum ", lr, " b "\n"                                                                     \
    "and " b ", " b ", lr\n"                                                                       \
    "orr " a ", " a ", " b "\n"

/* Two words that differ are added to the ones, the carry goes to c; d is overwritten. */
#define BNN_COUNT_PAIR(c, d)                                                                       \
    "ldrd " c ", " d ", [r0], #8\n"                                                                \
    "ldrd r12, lr, [r1], #8\n"                                                                     \
    "eor " c ", " c ", r12\n"                                                                      \
    "eor " d ", " d ", lr\n"                                                                       \
    BNN_COUNT_FA("r4", c, d)

/* The same with one register less. */
#define BNN_COUNT_LAST(c, d)                                                                       \
    "ldrd " c ", " d ", [r0], #8\n"                                                                \
    "ldr lr, [r1], #4\n"                                                                           \
    "eor " c ", " c ", lr\n"                                                                       \
    "ldr lr, [r1], #4\n"                                                                           \
    "eor " d ", " d ", lr\n"                                                                       \
    BNN_COUNT_FA("r4", c, d)

/* Eight words; the carry, worth eight, goes to c. */
#define BNN_COUNT_EIGHT(c)                                                                         \
    BNN_COUNT_PAIR(c, "r10")                                                                       \
    BNN_COUNT_PAIR("r10", "r11")                                                                   \
    BNN_COUNT_FA("r5", c, "r10")                                                                   \
    BNN_COUNT_PAIR("r10", "r11")                                                                   \
    BNN_COUNT_LAST("r11", "r12")                                                                   \
    BNN_COUNT_FA("r5", "r10", "r11")                                                               \
    BNN_COUNT_FA("r6", c, "r10")

/*
 * Bits that differ in sixteens * 16 words, of which there are some: ones, twos,
 * fours and eights that are left go to planes, the number of sixteens is returned.
 */
__attribute__((naked, noinline)) static uint32_t
bnn_count_sixteens(const uint32_t *a __attribute__((unused)),
                   const uint32_t *w __attribute__((unused)),
                   uint32_t sixteens __attribute__((unused)),
                   uint32_t *planes __attribute__((unused)))
{
    __asm volatile("push {r3-r11, lr}\n"
                   "mov r4, #0\n"
                   "mov r5, #0\n"
                   "mov r6, #0\n"
                   "mov r7, #0\n"
                   "mov r8, #0\n"
                   "1:\n" BNN_COUNT_EIGHT("r3") BNN_COUNT_EIGHT("r9")
                   BNN_COUNT_FA("r7", "r3", "r9")
                   "lsr lr, r3, #1\n"
                   "and lr, lr, #0x55555555\n"
                   "sub r3, r3, lr\n"
                   "and lr, r3, #0x33333333\n"
                   "lsr r3, r3, #2\n"
                   "and r3, r3, #0x33333333\n"
                   "add r3, r3, lr\n"
                   "add r3, r3, r3, lsr #4\n"
                   "and r3, r3, #0x0F0F0F0F\n"
                   "mov lr, #0x01010101\n"
                   "mul r3, r3, lr\n"
                   "add r8, r8, r3, lsr #24\n"
                   "subs r2, r2, #1\n"
                   "bne 1b\n"
                   "pop {r3}\n"
                   "mov r0, r8\n"
                   "stmia r3, {r4-r7}\n"
                   "pop {r4-r11, pc}\n");
}

#endif
