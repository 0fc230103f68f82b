/*
 * The inner loops of bnn_classes.c for Thumb-2, where they are worth it.  Each
 * does what the C function of its name does; not part of the interface.
 */
#ifndef BNN_CLASSES_THUMB2_H
#define BNN_CLASSES_THUMB2_H

#include <stdint.h>

#define BNN_NAKED __attribute__((naked, noinline, unused)) static
#define BNN_UNUSED __attribute__((unused))

/* sum gets sum + a + b, the carry goes to a; t and b are overwritten. */
#define BNN_FA(sum, a, b, t)                                                                       \
    "eor " t ", " sum ", " a "\n"                                                                  \
    "and " a ", " a ", " sum "\n"                                                                  \
    "eor " sum ", " t ", " b "\n"                                                                  \
    "and " b ", " b ", " t "\n"                                                                    \
    "orr " a ", " a ", " b "\n"

/* The same without a register to spare. */
#define BNN_FA_TIGHT(sum, a, b)                                                                    \
    "eor " a ", " a ", " sum "\n"                                                                  \
    "eor " b ", " b ", " sum "\n"                                                                  \
    "eor " b ", " b ", " a "\n"                                                                    \
    "bic " a ", " a ", " b "\n"                                                                    \
    "eor " a ", " a ", " sum "\n"                                                                  \
    "eor " sum ", " sum ", " b "\n"

/* sum gets sum + a, the carry goes to c. */
#define BNN_HA(sum, a, c)                                                                          \
    "and " c ", " sum ", " a "\n"                                                                  \
    "eor " sum ", " sum ", " a "\n"

/* Four inputs by their places. */
#define BNN_PLACES(a, b, c, d)                                                                     \
    "ldrh " a ", [r0], #2\n"                                                                       \
    "ldrh " b ", [r0], #2\n"                                                                       \
    "ldrh " c ", [r0], #2\n"                                                                       \
    "ldrh " d ", [r0], #2\n"                                                                       \
    "ldr " a ", [r1, " a ", lsl #2]\n"                                                             \
    "ldr " b ", [r1, " b ", lsl #2]\n"                                                             \
    "ldr " c ", [r1, " c ", lsl #2]\n"                                                             \
    "ldr " d ", [r1, " d ", lsl #2]\n"

/* Four inputs by their steps; r2 is the place. */
#define BNN_STEPS(a, b, c, d)                                                                      \
    "ldr " d ", [r0], #4\n"                                                                        \
    "uxtab r2, r2, " d "\n"                                                                        \
    "ldr " a ", [r1, r2, lsl #2]\n"                                                                \
    "uxtab r2, r2, " d ", ror #8\n"                                                                \
    "ldr " b ", [r1, r2, lsl #2]\n"                                                                \
    "uxtab r2, r2, " d ", ror #16\n"                                                               \
    "ldr " c ", [r1, r2, lsl #2]\n"                                                                \
    "uxtab r2, r2, " d ", ror #24\n"                                                               \
    "ldr " d ", [r1, r2, lsl #2]\n"

/* Four inputs are added to the planes o, t, f and e of at most eight. */
#define BNN_QUAD(LOAD, o, t, f, e)                                                                 \
    LOAD("r9", "r10", "r11", "r12")                                                                \
    BNN_FA(o, "r9", "r10", "lr")                                                                   \
    BNN_FA(o, "r11", "r12", "lr")                                                                  \
    BNN_FA(t, "r9", "r11", "lr")                                                                   \
    BNN_HA(f, "r9", "r10")                                                                         \
    "eor " e ", " e ", r10\n"

/* Eight inputs are added to the planes o, t and f; the carry, worth eight, goes to r9. */
#define BNN_OCTET(LOAD, o, t, f)                                                                   \
    LOAD("r9", "r10", "r11", "r12")                                                                \
    BNN_FA(o, "r9", "r10", "lr")                                                                   \
    BNN_FA(o, "r11", "r12", "lr")                                                                  \
    BNN_FA(t, "r9", "r11", "lr")                                                                   \
    LOAD("r10", "r11", "r12", "lr")                                                                \
    BNN_FA_TIGHT(o, "r10", "r11")                                                                  \
    BNN_FA(o, "r12", "lr", "r11")                                                                  \
    BNN_FA(t, "r10", "r12", "r11")                                                                 \
    BNN_FA(f, "r9", "r10", "r11")

/*
 * On the stack: 0 the end of the list, 4 where the sum goes, 8 the end of the
 * sums, 12 a carry, 16 the highest plane.  A list begins with an octet that needs
 * no planes yet; then come a quad and an octet where their numbers are odd, then
 * pairs of octets.
 */
#define BNN_ENTER                                                                                  \
    "push {r4-r11, lr}\n"                                                                          \
    "sub sp, #20\n"                                                                                \
    "str r2, [sp, #4]\n"                                                                           \
    "add r3, r2, r3, lsl #6\n"                                                                     \
    "str r3, [sp, #8]\n"

#define BNN_LEAVE                                                                                  \
    "add sp, #20\n"                                                                                \
    "pop {r4-r11, pc}\n"

BNN_NAKED const void *bnn_run_places(const void *list BNN_UNUSED, const uint32_t *x BNN_UNUSED,
                                     uint32_t *sums BNN_UNUSED, uint32_t classes BNN_UNUSED)
{
    __asm volatile(
        BNN_ENTER
        "2:\n"
        "ldrh r12, [r0], #2\n"
        "add lr, r0, r12, lsl #3\n"
        "str lr, [sp]\n"
        "str r12, [sp, #12]\n"
        BNN_PLACES("r2", "r3", "r4", "r5")
        BNN_PLACES("r6", "r7", "r8", "r9")
        BNN_FA("r2", "r3", "r4", "lr")
        BNN_FA("r2", "r5", "r6", "lr")
        BNN_FA("r2", "r7", "r8", "lr")
        BNN_HA("r2", "r9", "r4")
        BNN_FA("r3", "r5", "r7", "lr")
        BNN_HA("r3", "r4", "r6")
        "eor r4, r5, r6\n"
        "and r5, r5, r6\n"
        "mov r6, #0\n"
        "mov r7, #0\n"
        "mov r8, #0\n"
        "tst r12, #1\n"
        "beq 6f\n"
        BNN_QUAD(BNN_PLACES, "r2", "r3", "r4", "r5")
        "ldr r12, [sp, #12]\n"
        "6:\n"
        "tst r12, #2\n"
        "bne 3f\n"
        BNN_OCTET(BNN_PLACES, "r2", "r3", "r4")
        BNN_HA("r5", "r9", "r6") /* at most twenty so far */
        "3:\n"
        "ldr lr, [sp]\n"
        "cmp lr, r0\n"
        "beq 5f\n"
        "4:\n"
        BNN_OCTET(BNN_PLACES, "r2", "r3", "r4")
        "str r9, [sp, #12]\n"
        BNN_OCTET(BNN_PLACES, "r2", "r3", "r4")
        "ldr r10, [sp, #12]\n"
        "ldr lr, [sp]\n"
        BNN_FA("r5", "r9", "r10", "r11")
        BNN_HA("r6", "r9", "r10")
        BNN_HA("r7", "r10", "r11")
        "orr r8, r8, r11\n"
        "cmp lr, r0\n"
        "bne 4b\n"
        "5:\n"
        "ldr lr, [sp, #4]\n"
        "ldr r12, [sp, #8]\n"
        "stmia lr, {r2-r8}\n"
        "add lr, lr, #64\n"
        "str lr, [sp, #4]\n"
        "cmp lr, r12\n"
        "bne 2b\n"
        BNN_LEAVE);
}

#if defined(__ARM_FEATURE_DSP)
#define BNN_HAS_STEPS 1

BNN_NAKED const void *bnn_run_steps(const void *list BNN_UNUSED, const uint32_t *x BNN_UNUSED,
                                    uint32_t *sums BNN_UNUSED, uint32_t classes BNN_UNUSED)
{
    __asm volatile(
        BNN_ENTER
        "2:\n"
        "ldrb r12, [r0], #1\n"
        "mov r2, #0\n"
        "add lr, r0, r12, lsl #2\n"
        "str lr, [sp]\n"
        "str r12, [sp, #12]\n"
        BNN_STEPS("r3", "r4", "r5", "r6")
        BNN_STEPS("r7", "r8", "r9", "r10")
        BNN_FA("r3", "r4", "r5", "lr")
        BNN_FA("r3", "r6", "r7", "lr")
        BNN_FA("r3", "r8", "r9", "lr")
        BNN_HA("r3", "r10", "r5")
        BNN_FA("r4", "r6", "r8", "lr")
        BNN_HA("r4", "r5", "r7")
        "eor r5, r6, r7\n"
        "and r6, r6, r7\n"
        "mov r7, #0\n"
        "mov r8, #0\n"
        "str r8, [sp, #16]\n"
        "tst r12, #1\n"
        "beq 6f\n"
        BNN_QUAD(BNN_STEPS, "r3", "r4", "r5", "r6")
        "ldr r12, [sp, #12]\n"
        "6:\n"
        "tst r12, #2\n"
        "bne 3f\n"
        BNN_OCTET(BNN_STEPS, "r3", "r4", "r5")
        BNN_HA("r6", "r9", "r7")
        "3:\n"
        "ldr lr, [sp]\n"
        "cmp lr, r0\n"
        "beq 5f\n"
        "4:\n"
        BNN_OCTET(BNN_STEPS, "r3", "r4", "r5")
        "str r9, [sp, #12]\n"
        BNN_OCTET(BNN_STEPS, "r3", "r4", "r5")
        "ldr r10, [sp, #12]\n"
        "ldr r12, [sp, #16]\n"
        "ldr lr, [sp]\n"
        BNN_FA("r6", "r9", "r10", "r11")
        BNN_HA("r7", "r9", "r10")
        BNN_HA("r8", "r10", "r11")
        "orr r12, r12, r11\n"
        "str r12, [sp, #16]\n"
        "cmp lr, r0\n"
        "bne 4b\n"
        "5:\n"
        "ldr lr, [sp, #4]\n"
        "ldr r9, [sp, #16]\n"
        "ldr r12, [sp, #8]\n"
        "stmia lr, {r3-r9}\n"
        "add lr, lr, #64\n"
        "str lr, [sp, #4]\n"
        "cmp lr, r12\n"
        "bne 2b\n"
        BNN_LEAVE);
}
#endif

/* One plane: a gets a + b + r12, and r12 the carry. */
#define BNN_PLANE(a, b)                                                                            \
    "eor lr, " a ", " b "\n"                                                                       \
    "and " b ", " a ", " b "\n"                                                                    \
    "eor " a ", lr, r12\n"                                                                         \
    "and r12, lr, r12\n"                                                                           \
    "orr r12, r12, " b "\n"

/* Planes 0 to 3, of which the first has no carry yet. */
#define BNN_LOWEST                                                                                 \
    "ldmia r1!, {r4-r7}\n"                                                                         \
    "ldmia r2!, {r8-r11}\n"                                                                        \
    "and r12, r4, r8\n"                                                                            \
    "eor r4, r4, r8\n"                                                                             \
    BNN_PLANE("r5", "r9")                                                                          \
    BNN_PLANE("r6", "r10")                                                                         \
    BNN_PLANE("r7", "r11")

#define BNN_ONE                                                                                    \
    "ldr r4, [r1], #4\n"                                                                           \
    "ldr r8, [r2], #4\n"                                                                           \
    BNN_PLANE("r4", "r8")
#define BNN_TWO                                                                                    \
    "ldmia r1!, {r4-r5}\n"                                                                         \
    "ldmia r2!, {r8-r9}\n"                                                                         \
    BNN_PLANE("r4", "r8")                                                                          \
    BNN_PLANE("r5", "r9")
#define BNN_THREE                                                                                  \
    "ldmia r1!, {r4-r6}\n"                                                                         \
    "ldmia r2!, {r8-r10}\n"                                                                        \
    BNN_PLANE("r4", "r8")                                                                          \
    BNN_PLANE("r5", "r9")                                                                          \
    BNN_PLANE("r6", "r10")
#define BNN_FOUR                                                                                   \
    "ldmia r1!, {r4-r7}\n"                                                                         \
    "ldmia r2!, {r8-r11}\n"                                                                        \
    BNN_PLANE("r4", "r8")                                                                          \
    BNN_PLANE("r5", "r9")                                                                          \
    BNN_PLANE("r6", "r10")                                                                         \
    BNN_PLANE("r7", "r11")
#define BNN_KEEP "stmia r0!, {r4-r7}\n"

/* count sums of as many planes; numbers are 64 bytes apart, of which 4 * planes are used up. */
#define BNN_ADDER(name, body, last, rest, used)                                                    \
    BNN_NAKED void name(uint32_t *sum BNN_UNUSED, const uint32_t *a BNN_UNUSED,                    \
                        const uint32_t *b BNN_UNUSED, uint32_t count BNN_UNUSED)                   \
    {                                                                                              \
        __asm volatile("push {r4-r11, lr}\n"                                                       \
                       "1:\n" BNN_LOWEST body "stmia r0!, {" last "}\n"                            \
                       "subs r3, r3, #1\n"                                                         \
                       "add r0, r0, #" rest "\n"                                                   \
                       "add r1, r1, #" used "\n"                                                   \
                       "add r2, r2, #" used "\n"                                                   \
                       "bne 1b\n"                                                                  \
                       "pop {r4-r11, pc}\n");                                                      \
    }

BNN_ADDER(bnn_add_4, "", "r4-r7, r12", "44", "48")
BNN_ADDER(bnn_add_5, BNN_KEEP BNN_ONE, "r4, r12", "40", "44")
BNN_ADDER(bnn_add_6, BNN_KEEP BNN_TWO, "r4-r5, r12", "36", "40")
BNN_ADDER(bnn_add_7, BNN_KEEP BNN_THREE, "r4-r6, r12", "32", "36")
BNN_ADDER(bnn_add_8, BNN_KEEP BNN_FOUR, "r4-r7, r12", "28", "32")
BNN_ADDER(bnn_add_9, BNN_KEEP BNN_FOUR BNN_KEEP BNN_ONE, "r4, r12", "24", "28")
BNN_ADDER(bnn_add_10, BNN_KEEP BNN_FOUR BNN_KEEP BNN_TWO, "r4-r5, r12", "20", "24")
BNN_ADDER(bnn_add_11, BNN_KEEP BNN_FOUR BNN_KEEP BNN_THREE, "r4-r6, r12", "16", "20")

#define BNN_FEWEST 4u
#define BNN_MOST 11u

static void (*const bnn_adders[])(uint32_t *, const uint32_t *, const uint32_t *, uint32_t) = {
    bnn_add_4, bnn_add_5, bnn_add_6, bnn_add_7, bnn_add_8, bnn_add_9, bnn_add_10, bnn_add_11,
};

/* One plane of m - 2 M: r7 the difference, r4 the borrow, r6 the plane of 2 M. */
#define BNN_DIFFERENCE                                                                             \
    "ldr r5, [r0], #4\n"                                                                           \
    "eor r8, r5, r6\n"                                                                             \
    "bic r5, r6, r5\n"                                                                             \
    "eor r7, r8, r4\n"                                                                             \
    "bic r4, r4, r8\n"                                                                             \
    "orr r4, r4, r5\n"

/* Enters fifteen stages of so many bytes with r3 of them left. */
#define BNN_LAST_STAGES(bytes)                                                                     \
    "rsb r3, r3, #15\n"                                                                            \
    "mov r5, #" bytes "\n"                                                                         \
    "mul r3, r3, r5\n"                                                                             \
    "adr r5, 1f\n"                                                                                 \
    "add r5, r5, r3\n"                                                                             \
    "mov r4, #0\n"                                                                                 \
    "mov r6, #0\n"                                                                                 \
    "mov r12, #0\n"                                                                                \
    "mov pc, r5\n"                                                                                 \
    ".balign 4\n"                                                                                  \
    "1:\n"

/* Every instruction of a stage has four bytes, but lsrs and ite, which have two. */
#define BNN_STAGE                                                                                  \
    BNN_DIFFERENCE                                                                                 \
    "lsrs r2, r2, #1\n"                                                                            \
    "ite cs\n"                                                                                     \
    "orrcs r12, r12, r7\n"                                                                         \
    "andcc r12, r12, r7\n"                                                                         \
    "ldr r6, [r1], #4\n"
#define BNN_STAGE_OF_LANES                                                                         \
    BNN_DIFFERENCE                                                                                 \
    "ldr r9, [r2], #4\n"                                                                           \
    "ldr r6, [r1], #4\n"                                                                           \
    "orr lr, r9, r7\n"                                                                             \
    "and r9, r9, r7\n"                                                                             \
    "and r12, r12, lr\n"                                                                           \
    "orr r12, r12, r9\n"
#define BNN_FIVE(stage) stage stage stage stage stage

/* m, M, addend, planes less 1: the sign of m - 2 M + addend, the addend that of all lanes. */
BNN_NAKED uint32_t bnn_sign(const uint32_t *m BNN_UNUSED, const uint32_t *mark BNN_UNUSED,
                            uint32_t addend BNN_UNUSED, uint32_t stages BNN_UNUSED)
{
    __asm volatile("push {r4-r8, lr}\n" BNN_LAST_STAGES("40")
                   BNN_FIVE(BNN_STAGE) BNN_FIVE(BNN_STAGE) BNN_FIVE(BNN_STAGE)
                   BNN_DIFFERENCE
                   "eor r0, r7, r12\n"
                   "lsrs r2, r2, #1\n"
                   "it cs\n"
                   "mvncs r0, r0\n"
                   "pop {r4-r8, pc}\n");
}

/* The same with an addend for each lane. */
BNN_NAKED uint32_t bnn_sign_lanes(const uint32_t *m BNN_UNUSED, const uint32_t *mark BNN_UNUSED,
                                  const uint32_t *addend BNN_UNUSED, uint32_t stages BNN_UNUSED)
{
    __asm volatile("push {r4-r9, lr}\n" BNN_LAST_STAGES("48")
                   BNN_FIVE(BNN_STAGE_OF_LANES) BNN_FIVE(BNN_STAGE_OF_LANES)
                   BNN_FIVE(BNN_STAGE_OF_LANES)
                   BNN_DIFFERENCE
                   "ldr r9, [r2]\n"
                   "eor r0, r7, r12\n"
                   "eor r0, r0, r9\n"
                   "pop {r4-r9, pc}\n");
}

static inline uint32_t bnn_sign_of(const uint32_t *m, const uint32_t *mark, uint32_t addend,
                                   uint32_t planes)
{
    return bnn_sign(m, mark, addend, planes - 1u);
}

static inline uint32_t bnn_sign_of_lanes(const uint32_t *m, const uint32_t *mark,
                                         const uint32_t *addend, uint32_t planes)
{
    return bnn_sign_lanes(m, mark, addend, planes - 1u);
}

#endif
