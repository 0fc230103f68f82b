/*
 * The inner loops of bnn_toom.c for Thumb-2.  Each does what the C function of its
 * name does; not part of the interface.
 *
 * Registers and stack are as in bnn_toom_thumb1.h.
 */
#ifndef BNN_TOOM_THUMB2_H
#define BNN_TOOM_THUMB2_H

#include "bnn_toom_tile.h"

/* Four products, added up in r2. */
#define BNN_TOOM_FOUR                                                                              \
    "ldmia r0!, {r2-r5}\n"                                                                         \
    "ldmia r1!, {r6, r7, r12, lr}\n"                                                               \
    "mul r2, r2, r6\n"                                                                             \
    "mla r2, r3, r7, r2\n"                                                                         \
    "mla r2, r4, r12, r2\n"                                                                        \
    "mla r2, r5, lr, r2\n"

/* As many fours as the stack says. */
#define BNN_TOOM_FOURS                                                                             \
    "mov r2, #0\n"                                                                                 \
    "ldr r7, [sp, #80]\n"                                                                          \
    "4:\n"                                                                                         \
    "ldmia r0!, {r3, r4}\n"                                                                        \
    "ldmia r1!, {r5, r6}\n"                                                                        \
    "mla r2, r3, r5, r2\n"                                                                         \
    "mla r2, r4, r6, r2\n"                                                                         \
    "ldmia r0!, {r3, r4}\n"                                                                        \
    "ldmia r1!, {r5, r6}\n"                                                                        \
    "mla r2, r3, r5, r2\n"                                                                         \
    "mla r2, r4, r6, r2\n"                                                                         \
    "subs r7, r7, #1\n"                                                                            \
    "bne 4b\n"

/* The products of the six row points of a column. */
#define BNN_TOOM_COLUMN(PRODUCT)                                                                   \
    PRODUCT                                                                                        \
    "mov r8, r2\n"                                                                                 \
    PRODUCT                                                                                        \
    "add r8, r8, r2\n"                                                                             \
    "mov r9, r2\n"                                                                                 \
    "mov r10, r2\n"                                                                                \
    PRODUCT                                                                                        \
    "add r8, r8, r2\n"                                                                             \
    "sub r9, r9, r2\n"                                                                             \
    "add r10, r10, r2\n"                                                                           \
    PRODUCT                                                                                        \
    "add r8, r8, r2\n"                                                                             \
    "add r9, r9, r2, lsl #1\n"                                                                     \
    "add r10, r10, r2, lsl #2\n"                                                                   \
    PRODUCT                                                                                        \
    "add r8, r8, r2, lsl #2\n"                                                                     \
    "add r9, r9, r2, lsl #1\n"                                                                     \
    "add r10, r10, r2\n"                                                                           \
    PRODUCT                                                                                        \
    "add r2, r2, r10\n"                                                                            \
    "stmia r11!, {r2, r8, r9}\n"                                                                   \
    "add r3, sp, #72\n"                                                                            \
    "cmp r11, r3\n"

/* Three sums, r0, r2 and r6, of a row whose parts are at offsets; r8 is the bias. */
#define BNN_TOOM_ROW(c0, c1, c2, c3, c4, c5)                                                       \
    "ldr r0, [sp, #" c0 "]\n"                                                                      \
    "ldr r2, [sp, #" c1 "]\n"                                                                      \
    "ldr r3, [sp, #" c2 "]\n"                                                                      \
    "ldr r4, [sp, #" c3 "]\n"                                                                      \
    "ldr r5, [sp, #" c4 "]\n"                                                                      \
    "ldr r6, [sp, #" c5 "]\n"                                                                      \
    "add r2, r2, r8\n"                                                                             \
    "add r7, r2, r3\n"                                                                             \
    "sub r2, r2, r3\n"                                                                             \
    "add r3, r4, r5\n"                                                                             \
    "add r2, r2, r3, lsl #1\n"                                                                     \
    "add r0, r0, r7\n"                                                                             \
    "add r0, r0, r4\n"                                                                             \
    "add r0, r0, r5, lsl #2\n"                                                                     \
    "add r6, r6, r7\n"                                                                             \
    "add r6, r6, r5\n"                                                                             \
    "add r6, r6, r4, lsl #2\n"
#define BNN_TOOM_TOP BNN_TOOM_ROW("4", "16", "28", "40", "52", "64")
#define BNN_TOOM_MIDDLE BNN_TOOM_ROW("8", "20", "32", "44", "56", "68")
#define BNN_TOOM_BOTTOM BNN_TOOM_ROW("0", "12", "24", "36", "48", "60")

/* Three signs become the lowest bits of the words at an offset and behind it. */
#define BNN_TOOM_SIGNS(offset)                                                                     \
    "add r7, sp, #" offset "\n"                                                                    \
    "ldmia r7, {r3, r4, r5}\n"                                                                     \
    "lsls r0, r0, #1\n"                                                                            \
    "adc r3, r3, r3\n"                                                                             \
    "lsls r2, r2, #1\n"                                                                            \
    "adc r4, r4, r4\n"                                                                             \
    "lsls r6, r6, #1\n"                                                                            \
    "adc r5, r5, r5\n"                                                                             \
    "stmia r7, {r3, r4, r5}\n"

/* Three sums go where the word at 84 points. */
#define BNN_TOOM_KEEP                                                                              \
    "ldr r3, [sp, #84]\n"                                                                          \
    "stmia r3!, {r0, r2, r6}\n"                                                                    \
    "str r3, [sp, #84]\n"

/* 72: v, 76: end, 80: fours, 84: to. */
#define BNN_TOOM_ENTER(frame)                                                                      \
    "push {r4-r11, lr}\n"                                                                          \
    "sub sp, #" frame "\n"                                                                         \
    "ldmia r0, {r1-r5}\n"                                                                          \
    "add r6, sp, #72\n"                                                                            \
    "stmia r6!, {r2, r3, r4}\n"                                                                    \
    "str r1, [r6]\n"                                                                               \
    "mov r1, r5\n"
#define BNN_TOOM_LEAVE(frame)                                                                      \
    "add sp, #" frame "\n"                                                                         \
    "pop {r4-r11, pc}\n"

/* Every filter: its columns, then the bias and its rows. */
#define BNN_TOOM_LOOP(PRODUCT, TOP, MIDDLE, BOTTOM)                                                \
    "1:\n"                                                                                         \
    "ldr r0, [sp, #72]\n"                                                                          \
    "mov r11, sp\n"                                                                                \
    "2:\n" BNN_TOOM_COLUMN(PRODUCT)                                                                \
    "bne 2b\n"                                                                                     \
    "ldr r8, [r1], #4\n"                                                                           \
    BNN_TOOM_TOP TOP BNN_TOOM_MIDDLE MIDDLE BNN_TOOM_BOTTOM BOTTOM                                 \
    "ldr r2, [sp, #76]\n"                                                                          \
    "cmp r1, r2\n"                                                                                 \
    "bne 1b\n"

#define BNN_TOOM_NAKED __attribute__((naked, noinline)) static

/* The words of signs are at 88 to 120. */
#define BNN_TOOM_BITS(name, PRODUCT)                                                               \
    BNN_TOOM_NAKED void name(const bnn_tile_t *tile __attribute__((unused)))                       \
    {                                                                                              \
        __asm volatile(BNN_TOOM_ENTER("124")                                                       \
                       "mov r2, #0\n"                                                              \
                       "mov r3, #0\n"                                                              \
                       "mov r4, #0\n"                                                              \
                       "add r5, sp, #88\n"                                                         \
                       "stmia r5!, {r2, r3, r4}\n"                                                 \
                       "stmia r5!, {r2, r3, r4}\n"                                                 \
                       "stmia r5!, {r2, r3, r4}\n"                                                 \
                       BNN_TOOM_LOOP(PRODUCT, BNN_TOOM_SIGNS("88"), BNN_TOOM_SIGNS("100"),         \
                                     BNN_TOOM_SIGNS("112"))                                        \
                       "ldr r0, [sp, #84]\n"                                                       \
                       "add r1, sp, #88\n"                                                         \
                       "ldmia r1, {r2-r10}\n"                                                      \
                       "stmia r0, {r2-r10}\n"                                                      \
                       BNN_TOOM_LEAVE("124"));                                                     \
    }

BNN_TOOM_BITS(bnn_toom_bits_four, BNN_TOOM_FOUR)
BNN_TOOM_BITS(bnn_toom_bits_fours, BNN_TOOM_FOURS)

BNN_TOOM_NAKED void bnn_toom_sums(const bnn_tile_t *tile __attribute__((unused)))
{
    __asm volatile(BNN_TOOM_ENTER("92")
                   BNN_TOOM_LOOP(BNN_TOOM_FOURS, BNN_TOOM_KEEP, BNN_TOOM_KEEP, BNN_TOOM_KEEP)
                   BNN_TOOM_LEAVE("92"));
}

#endif
