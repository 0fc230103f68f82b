/*
 * The inner loops of bnn_toom.c for Thumb-1.  Each does what the C function of its
 * name does; not part of the interface.
 *
 * r0: the pixels' numbers, r1: the weights, r8, r9, r10: the three sums of a column of
 * products, r11: where these go, r12: the end of that.  On the stack: 18 words for
 * them, two to a column point from r12 on, and the parts of a bnn_tile_t.
 */
#ifndef BNN_TOOM_THUMB1_H
#define BNN_TOOM_THUMB1_H

#include "bnn_toom_tile.h"

/* Four products, added up in r2. */
#define BNN_TOOM_FOUR                                                                              \
    "ldmia r0!, {r2, r3, r4, r5}\n"                                                                \
    "ldmia r1!, {r6, r7}\n"                                                                        \
    "muls r2, r6, r2\n"                                                                            \
    "muls r3, r7, r3\n"                                                                            \
    "ldmia r1!, {r6, r7}\n"                                                                        \
    "muls r4, r6, r4\n"                                                                            \
    "muls r5, r7, r5\n"                                                                            \
    "adds r2, r2, r3\n"                                                                            \
    "adds r2, r2, r4\n"                                                                            \
    "adds r2, r2, r5\n"

/* As many fours as the stack says; lr adds them up, r12 counts them. */
#define BNN_TOOM_FOURS                                                                             \
    "movs r2, #0\n"                                                                                \
    "mov lr, r2\n"                                                                                 \
    "ldr r2, [sp, #80]\n"                                                                          \
    "mov r12, r2\n"                                                                                \
    "4:\n" BNN_TOOM_FOUR                                                                           \
    "add lr, r2\n"                                                                                 \
    "mov r2, r12\n"                                                                                \
    "subs r2, #1\n"                                                                                \
    "mov r12, r2\n"                                                                                \
    "bne 4b\n"                                                                                     \
    "mov r2, lr\n"

/* The products of the six row points of a column. */
#define BNN_TOOM_COLUMN(PRODUCT)                                                                   \
    PRODUCT                                                                                        \
    "mov r8, r2\n"                                                                                 \
    PRODUCT                                                                                        \
    "add r8, r2\n"                                                                                 \
    "mov r9, r2\n"                                                                                 \
    "mov r10, r2\n"                                                                                \
    PRODUCT                                                                                        \
    "add r8, r2\n"                                                                                 \
    "add r10, r2\n"                                                                                \
    "negs r2, r2\n"                                                                                \
    "add r9, r2\n"                                                                                 \
    PRODUCT                                                                                        \
    "add r8, r2\n"                                                                                 \
    "lsls r2, r2, #1\n"                                                                            \
    "add r9, r2\n"                                                                                 \
    "lsls r2, r2, #1\n"                                                                            \
    "add r10, r2\n"                                                                                \
    PRODUCT                                                                                        \
    "add r10, r2\n"                                                                                \
    "lsls r2, r2, #1\n"                                                                            \
    "add r9, r2\n"                                                                                 \
    "lsls r2, r2, #1\n"                                                                            \
    "add r8, r2\n"                                                                                 \
    PRODUCT                                                                                        \
    "add r2, r10\n"                                                                                \
    "mov r3, r8\n"                                                                                 \
    "mov r4, r9\n"                                                                                 \
    "mov r5, r11\n"                                                                                \
    "stmia r5!, {r2, r3, r4}\n"                                                                    \
    "mov r11, r5\n"                                                                                \
    "mov r3, sp\n"                                                                                 \
    "subs r3, r5, r3\n"                                                                            \
    "cmp r3, #72\n"

/* Three sums, r0, r2 and r6, of a row whose parts begin at an offset; r8 is the bias. */
#define BNN_TOOM_ROW(c0, c1, c2, c3, c4, c5)                                                       \
    "ldr r0, [sp, #" c0 "]\n"                                                                      \
    "ldr r2, [sp, #" c1 "]\n"                                                                      \
    "ldr r3, [sp, #" c2 "]\n"                                                                      \
    "ldr r4, [sp, #" c3 "]\n"                                                                      \
    "ldr r5, [sp, #" c4 "]\n"                                                                      \
    "ldr r6, [sp, #" c5 "]\n"                                                                      \
    "add r2, r8\n"                                                                                 \
    "adds r7, r2, r3\n"                                                                            \
    "subs r2, r2, r3\n"                                                                            \
    "adds r3, r4, r5\n"                                                                            \
    "lsls r3, r3, #1\n"                                                                            \
    "adds r2, r2, r3\n"                                                                            \
    "lsls r3, r5, #2\n"                                                                            \
    "adds r3, r3, r4\n"                                                                            \
    "adds r3, r3, r7\n"                                                                            \
    "adds r0, r0, r3\n"                                                                            \
    "lsls r4, r4, #2\n"                                                                            \
    "adds r4, r4, r5\n"                                                                            \
    "adds r4, r4, r7\n"                                                                            \
    "adds r6, r6, r4\n"
#define BNN_TOOM_TOP BNN_TOOM_ROW("4", "16", "28", "40", "52", "64")
#define BNN_TOOM_MIDDLE BNN_TOOM_ROW("8", "20", "32", "44", "56", "68")
#define BNN_TOOM_BOTTOM BNN_TOOM_ROW("0", "12", "24", "36", "48", "60")

/* A sign becomes the lowest bit of the word at an offset. */
#define BNN_TOOM_SIGN(sum, offset)                                                                 \
    "lsls " sum ", " sum ", #1\n"                                                                  \
    "ldr r3, [sp, #" offset "]\n"                                                                  \
    "adcs r3, r3\n"                                                                                \
    "str r3, [sp, #" offset "]\n"
#define BNN_TOOM_SIGNS(o0, o1, o2)                                                                 \
    BNN_TOOM_SIGN("r0", o0) BNN_TOOM_SIGN("r2", o1) BNN_TOOM_SIGN("r6", o2)

/* Three sums go where the word at 84 points. */
#define BNN_TOOM_KEEP                                                                              \
    "ldr r3, [sp, #84]\n"                                                                          \
    "stmia r3!, {r0, r2, r6}\n"                                                                    \
    "str r3, [sp, #84]\n"

/* 72: v, 76: end, 80: fours, 84: to. */
#define BNN_TOOM_ENTER(frame)                                                                      \
    ".syntax unified\n" /* gcc takes the old one for Thumb-1 */                                    \
    "push {r4-r7, lr}\n"                                                                           \
    "mov r4, r8\n"                                                                                 \
    "mov r5, r9\n"                                                                                 \
    "mov r6, r10\n"                                                                                \
    "mov r7, r11\n"                                                                                \
    "push {r4-r7}\n"                                                                               \
    "sub sp, #" frame "\n"                                                                         \
    "ldmia r0!, {r1, r2, r3, r4}\n"                                                                \
    "str r2, [sp, #72]\n"                                                                          \
    "str r3, [sp, #76]\n"                                                                          \
    "str r4, [sp, #80]\n"                                                                          \
    "str r1, [sp, #84]\n"                                                                          \
    "ldr r1, [r0]\n"
#define BNN_TOOM_LEAVE(frame)                                                                      \
    "add sp, #" frame "\n"                                                                         \
    "pop {r4-r7}\n"                                                                                \
    "mov r8, r4\n"                                                                                 \
    "mov r9, r5\n"                                                                                 \
    "mov r10, r6\n"                                                                                \
    "mov r11, r7\n"                                                                                \
    "pop {r4-r7, pc}\n"

/* Every filter: its columns, then the bias and its rows. */
#define BNN_TOOM_LOOP(PRODUCT, TOP, MIDDLE, BOTTOM)                                                \
    "1:\n"                                                                                         \
    "ldr r0, [sp, #72]\n"                                                                          \
    "mov r11, sp\n"                                                                                \
    "2:\n" BNN_TOOM_COLUMN(PRODUCT)                                                                \
    "beq 3f\n"                                                                                     \
    "b 2b\n"                                                                                       \
    "3:\n"                                                                                         \
    "ldmia r1!, {r2}\n"                                                                            \
    "mov r8, r2\n"                                                                                 \
    BNN_TOOM_TOP TOP BNN_TOOM_MIDDLE MIDDLE BNN_TOOM_BOTTOM BOTTOM                                 \
    "ldr r2, [sp, #76]\n"                                                                          \
    "cmp r1, r2\n"                                                                                 \
    "beq 5f\n"                                                                                     \
    "b 1b\n"                                                                                       \
    "5:\n"

#define BNN_TOOM_NAKED __attribute__((naked, noinline)) static

/* The words of signs are at 88 to 120. */
#define BNN_TOOM_BITS(name, PRODUCT)                                                               \
    BNN_TOOM_NAKED void name(const bnn_tile_t *tile __attribute__((unused)))                       \
    {                                                                                              \
        __asm volatile(BNN_TOOM_ENTER("124")                                                       \
                       "movs r2, #0\n"                                                             \
                       "movs r3, #0\n"                                                             \
                       "movs r4, #0\n"                                                             \
                       "add r5, sp, #88\n"                                                         \
                       "stmia r5!, {r2, r3, r4}\n"                                                 \
                       "stmia r5!, {r2, r3, r4}\n"                                                 \
                       "stmia r5!, {r2, r3, r4}\n"                                                 \
                       BNN_TOOM_LOOP(PRODUCT, BNN_TOOM_SIGNS("88", "92", "96"),                    \
                                     BNN_TOOM_SIGNS("100", "104", "108"),                          \
                                     BNN_TOOM_SIGNS("112", "116", "120"))                          \
                       "ldr r0, [sp, #84]\n"                                                       \
                       "add r1, sp, #88\n"                                                         \
                       "ldmia r1!, {r2-r6}\n"                                                      \
                       "stmia r0!, {r2-r6}\n"                                                      \
                       "ldmia r1!, {r2-r5}\n"                                                      \
                       "stmia r0!, {r2-r5}\n"                                                      \
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
