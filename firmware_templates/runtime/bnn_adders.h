/*
 * Counting in bit-planes with carry-save adders, 16 words at a time.  Not part
 * of the interface.
 */
#ifndef BNN_ADDERS_H
#define BNN_ADDERS_H

#include "bnn_low.h"

/* Full adder on 32 lanes: *sum gets a + b + *sum, the carry is returned. */
static inline uint32_t bnn_add3(uint32_t *sum, uint32_t a, uint32_t b)
{
    const uint32_t partial = *sum ^ a;
    const uint32_t carry = (*sum & a) | (partial & b);
    *sum = partial ^ b;
    return carry;
}

/*
 * Adds 16 words, ROW(0) to ROW(15), to the planes; the carry, worth 16, is
 * the value of the last argument.
 */
#define BNN_ADD16(low, ROW, carry)                                                                 \
    do {                                                                                           \
        uint32_t t0_, t1_, f0_, f1_, e0_;                                                          \
        t0_ = bnn_add3(&(low).ones, ROW(0), ROW(1));                                               \
        t1_ = bnn_add3(&(low).ones, ROW(2), ROW(3));                                               \
        f0_ = bnn_add3(&(low).twos, t0_, t1_);                                                     \
        t0_ = bnn_add3(&(low).ones, ROW(4), ROW(5));                                               \
        t1_ = bnn_add3(&(low).ones, ROW(6), ROW(7));                                               \
        f1_ = bnn_add3(&(low).twos, t0_, t1_);                                                     \
        e0_ = bnn_add3(&(low).fours, f0_, f1_);                                                    \
        t0_ = bnn_add3(&(low).ones, ROW(8), ROW(9));                                               \
        t1_ = bnn_add3(&(low).ones, ROW(10), ROW(11));                                             \
        f0_ = bnn_add3(&(low).twos, t0_, t1_);                                                     \
        t0_ = bnn_add3(&(low).ones, ROW(12), ROW(13));                                             \
        t1_ = bnn_add3(&(low).ones, ROW(14), ROW(15));                                             \
        f1_ = bnn_add3(&(low).twos, t0_, t1_);                                                     \
        f0_ = bnn_add3(&(low).fours, f0_, f1_);                                                    \
        (carry) = bnn_add3(&(low).eights, e0_, f0_);                                               \
    } while (0)

#if defined(__thumb2__) && defined(__GNUC__)
/*
 * The loops in assembly, as compilers spill what just fits.  A full adder of
 * sum, a and b leaves the carry in a; r2 is its temporary.  The sums are r4,
 * r5, r6 and r8; r7 is left alone, as it may hold the frame.  Carries go to
 * where r3 points, until that is what [sp, #4] holds; [sp] is a pointer for ROW.
 */
#define BNN_ADD3_ASM(sum, a, b)                                                                    \
    "eor r2, " sum ", " a "\n\t"                                                                   \
    "and " a ", " a ", " sum "\n\t"                                                                \
    "eor " sum ", r2, " b "\n\t"                                                                   \
    "and r2, r2, " b "\n\t"                                                                        \
    "orr " a ", " a ", r2\n\t"
/* ROW(r, n): row n of the block, named by register r when LOADn has filled it. */
#define BNN_ADD16_ASM(LOAD4, LOAD2, ROW)                                                           \
    LOAD4("r9", "r10", "r11", "r12")                                                               \
    ROW("r9", "0") ROW("r10", "1") ROW("r11", "2") ROW("r12", "3")                                 \
    BNN_ADD3_ASM("r4", "r9", "r10")                                                                \
    BNN_ADD3_ASM("r4", "r11", "r12")                                                               \
    BNN_ADD3_ASM("r5", "r9", "r11")                                                                \
    LOAD4("r10", "r11", "r12", "lr")                                                               \
    ROW("r10", "4") ROW("r11", "5") ROW("r12", "6") ROW("lr", "7")                                 \
    BNN_ADD3_ASM("r4", "r10", "r11")                                                               \
    BNN_ADD3_ASM("r4", "r12", "lr")                                                                \
    BNN_ADD3_ASM("r5", "r10", "r12")                                                               \
    BNN_ADD3_ASM("r6", "r9", "r10")                                                                \
    LOAD4("r10", "r11", "r12", "lr")                                                               \
    ROW("r10", "8") ROW("r11", "9") ROW("r12", "10") ROW("lr", "11")                               \
    BNN_ADD3_ASM("r4", "r10", "r11")                                                               \
    BNN_ADD3_ASM("r4", "r12", "lr")                                                                \
    BNN_ADD3_ASM("r5", "r10", "r12")                                                               \
    LOAD2("r11", "r12")                                                                            \
    ROW("r11", "12") ROW("r12", "13")                                                              \
    BNN_ADD3_ASM("r4", "r11", "r12")                                                               \
    LOAD2("r12", "lr")                                                                             \
    ROW("r12", "14") ROW("lr", "15")                                                               \
    BNN_ADD3_ASM("r4", "r12", "lr")                                                                \
    BNN_ADD3_ASM("r5", "r11", "r12")                                                               \
    BNN_ADD3_ASM("r6", "r10", "r11")                                                               \
    BNN_ADD3_ASM("r8", "r9", "r10")                                                                \
    "str r9, [r3], #4\n\t"                                                                         \
    "ldr r2, [sp, #4]\n\t"                                                                         \
    "cmp r3, r2\n\t"                                                                               \
    "bne 1b\n\t"
/* r0 points to a bnn_adding_t: its parts to their registers, and back. */
#define BNN_ENTER_ASM                                                                              \
    "ldmia r0!, {r4, r5, r6, r8}\n\t"                                                              \
    "push {r0}\n\t"                                                                                \
    "ldmia r0, {r0, r1, r3, r9}\n\t"                                                               \
    "push {r1, r9}\n\t"
#define BNN_LEAVE_ASM                                                                              \
    "ldr r0, [sp, #8]\n\t"                                                                         \
    "add sp, sp, #12\n\t"                                                                          \
    "sub r0, r0, #16\n\t"                                                                          \
    "stmia r0, {r4, r5, r6, r8}"
#define BNN_CLOBBERED                                                                              \
    "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory"

/* What the loops are given: r0 and r1, and between which addresses the carries go. */
typedef struct bnn_adding {
    bnn_low_t low;
    const uint32_t *r0, *r1;
    uint32_t *carries, *end;
    uint32_t pushed[3]; /* never used: the loops push as much, which no compiler reports */
} bnn_adding_t;

#define BNN_LOAD4_ASM(a, b, c, d) "ldmia r0!, {" a ", " b ", " c ", " d "}\n\t"
#define BNN_LOAD2_ASM(a, b) "ldrd " a ", " b ", [r0], #8\n\t"
#define BNN_LISTED_ASM(r, n) "ldr " r ", [r1, " r ", lsl #2]\n\t"
#define BNN_MASKED_ASM(r, n) "sbfx r2, r1, #" n ", #1\n\teor " r ", " r ", r2\n\t"
#endif

#endif
