/*
 * The inner loops of bnn_class_inputs.c for Thumb-1.  Each does what the C
 * function of its name does; not part of the interface.
 */
#ifndef BNN_CLASS_INPUTS_THUMB1_H
#define BNN_CLASS_INPUTS_THUMB1_H

#include <stdint.h>

#define BNN_NAKED __attribute__((naked, noinline, unused)) static
#define BNN_UNUSED __attribute__((unused))

/* The high bits of a's fields change places with the low bits of b's; MASK does so with t. */
#define BNN_SWAP(a, b, t, step, MASK)                                                              \
    "lsrs " t ", " a ", #" step "\n"                                                               \
    "eors " t ", " b "\n" MASK                                                                     \
    "eors " b ", " t "\n"                                                                          \
    "lsls " t ", " t ", #" step "\n"                                                               \
    "eors " a ", " t "\n"

/* gcc takes the old syntax for Thumb-1. */
#define BNN_ENTER                                                                                  \
    ".syntax unified\n"                                                                            \
    "push {r4-r7, lr}\n"
#define BNN_LEAVE "pop {r4-r7, pc}\n"

#define BNN_HALVES "uxth r7, r7\n"
#define BNN_BYTES "ands r7, r1\n"

BNN_NAKED void bnn_collect(uint32_t *block BNN_UNUSED, const uint32_t *base BNN_UNUSED,
                           const uint32_t *lane BNN_UNUSED)
{
    __asm volatile(BNN_ENTER
                   "mov r4, r8\n"
                   "mov r5, r9\n"
                   "push {r4, r5}\n"
                   "movs r3, #32\n"
                   "adds r3, r3, r2\n"
                   "mov r12, r3\n"
                   "mov r8, r1\n"
                   "ldr r3, 2f\n"
                   "mov r9, r3\n"
                   "b 1f\n"
                   ".balign 4\n"
                   "2: .word 0x00FF00FF\n"
                   "1:\n"
                   "mov r1, r8\n"
                   "ldr r4, [r2, #32]\n"
                   "ldr r5, [r2, #64]\n"
                   "ldr r6, [r2, #96]\n"
                   "ldmia r2!, {r3}\n"
                   "lsls r4, r4, #2\n"
                   "lsls r5, r5, #2\n"
                   "lsls r6, r6, #2\n"
                   "lsls r3, r3, #2\n"
                   "ldr r4, [r1, r4]\n"
                   "ldr r5, [r1, r5]\n"
                   "ldr r6, [r1, r6]\n"
                   "ldr r3, [r1, r3]\n"
                   "mov r1, r9\n"
                   BNN_SWAP("r3", "r5", "r7", "16", BNN_HALVES)
                   BNN_SWAP("r4", "r6", "r7", "16", BNN_HALVES)
                   BNN_SWAP("r3", "r4", "r7", "8", BNN_BYTES)
                   BNN_SWAP("r5", "r6", "r7", "8", BNN_BYTES)
                   "str r4, [r0, #32]\n"
                   "str r5, [r0, #64]\n"
                   "str r6, [r0, #96]\n"
                   "stmia r0!, {r3}\n"
                   "cmp r2, r12\n"
                   "bne 1b\n"
                   "pop {r4, r5}\n"
                   "mov r8, r4\n"
                   "mov r9, r5\n" BNN_LEAVE);
}

#define BNN_FOURS "ands r7, r1\n"
#define BNN_TWOS "ands r7, r2\n"

/* The steps of 4 and 2 on four rows, two apart. */
#define BNN_NEAR(o0, o1, o2, o3)                                                                   \
    "ldr r3, [r0, #" o0 "]\n"                                                                      \
    "ldr r4, [r0, #" o1 "]\n"                                                                      \
    "ldr r5, [r0, #" o2 "]\n"                                                                      \
    "ldr r6, [r0, #" o3 "]\n"                                                                      \
    BNN_SWAP("r3", "r5", "r7", "4", BNN_FOURS)                                                     \
    BNN_SWAP("r4", "r6", "r7", "4", BNN_FOURS)                                                     \
    BNN_SWAP("r3", "r4", "r7", "2", BNN_TWOS)                                                      \
    BNN_SWAP("r5", "r6", "r7", "2", BNN_TWOS)                                                      \
    "str r3, [r0, #" o0 "]\n"                                                                      \
    "str r4, [r0, #" o1 "]\n"                                                                      \
    "str r5, [r0, #" o2 "]\n"                                                                      \
    "str r6, [r0, #" o3 "]\n"

/* All but the last step. */
BNN_NAKED void bnn_approach(uint32_t *block BNN_UNUSED)
{
    __asm volatile(BNN_ENTER
                   "movs r1, #128\n"
                   "adds r1, r1, r0\n"
                   "mov r12, r1\n"
                   "ldr r1, 2f\n"
                   "ldr r2, 3f\n"
                   "b 1f\n"
                   ".balign 4\n"
                   "2: .word 0x0F0F0F0F\n"
                   "3: .word 0x33333333\n"
                   "1:\n" BNN_NEAR("0", "8", "16", "24") BNN_NEAR("4", "12", "20", "28")
                   "adds r0, #32\n"
                   "cmp r0, r12\n"
                   "bne 1b\n" BNN_LEAVE);
}

#define BNN_ONES "ands r6, r5\n"

/* The last step. */
BNN_NAKED void bnn_arrive(uint32_t *block BNN_UNUSED)
{
    __asm volatile(BNN_ENTER
                   "movs r1, #128\n"
                   "adds r1, r1, r0\n"
                   "ldr r5, 2f\n"
                   "b 1f\n"
                   ".balign 4\n"
                   "2: .word 0x55555555\n"
                   "1:\n"
                   "ldr r3, [r0]\n"
                   "ldr r4, [r0, #4]\n"
                   BNN_SWAP("r3", "r4", "r6", "1", BNN_ONES)
                   "stmia r0!, {r3, r4}\n"
                   "cmp r0, r1\n"
                   "bne 1b\n" BNN_LEAVE);
}

static void bnn_finish(uint32_t *block)
{
    bnn_approach(block);
    bnn_arrive(block);
}

/* The last step too, and what becomes of the channels. */
BNN_NAKED uint32_t *bnn_put(uint32_t *x BNN_UNUSED, const uint32_t *block BNN_UNUSED,
                            uint32_t count BNN_UNUSED, uint32_t inside BNN_UNUSED)
{
    __asm volatile(BNN_ENTER
                   "lsls r4, r2, #3\n"
                   "adds r4, r4, r0\n"
                   "push {r4}\n"
                   "movs r7, r3\n"
                   "ldr r5, 2f\n"
                   "b 1f\n"
                   ".balign 4\n"
                   "2: .word 0x55555555\n"
                   "1:\n"
                   "ldmia r1!, {r3, r4}\n"
                   BNN_SWAP("r3", "r4", "r6", "1", BNN_ONES)
                   "movs r6, r7\n"
                   "bics r6, r3\n"
                   "ands r3, r7\n"
                   "stmia r0!, {r3, r6}\n"
                   "movs r6, r7\n"
                   "bics r6, r4\n"
                   "ands r4, r7\n"
                   "stmia r0!, {r4, r6}\n"
                   "subs r2, #2\n"
                   "bhi 1b\n"
                   "pop {r0}\n" BNN_LEAVE);
}

static uint32_t *bnn_put_block(uint32_t *x, uint32_t *block, uint32_t count, uint32_t inside)
{
    bnn_approach(block);
    return bnn_put(x, block, count, inside);
}

#endif
