/*
 * The inner loops of bnn_classes.c for Thumb-1, where they are worth it.  Each
 * does what the C function of its name does; not part of the interface.
 */
#ifndef BNN_CLASSES_THUMB1_H
#define BNN_CLASSES_THUMB1_H

#include "bnn_thumb1.h"

/* Entry n of a list: by its place, ... */
#define BNN_PLACE(r, n)                                                                            \
    "ldrh " r ", [r0, #2 * " #n "]\n"                                                              \
    "lsls " r ", " r ", #2\n"                                                                      \
    "ldr " r ", [r1, " r "]\n"
/* ... the same in bytes, ... */
#define BNN_OFFSET(r, n)                                                                           \
    "ldrh " r ", [r0, #2 * " #n "]\n"                                                              \
    "ldr " r ", [r1, " r "]\n"
/* ... or by the step to it. */
#define BNN_STEP(r, n)                                                                             \
    "ldrb " r ", [r0, #" #n "]\n"                                                                  \
    "lsls " r ", " r ", #2\n"                                                                      \
    "adds r1, r1, " r "\n"                                                                         \
    "ldr " r ", [r1]\n"

/*
 * Eight inputs that there is nothing to add to; r9 to r12 are the planes above, of
 * which those from sixteen on are zero.  lr is the end of the list.
 */
#define BNN_FIRST_OCTET(LOAD)                                                                      \
    LOAD("r2", 0) LOAD("r3", 1) LOAD("r4", 2) BNN_FA("r2", "r3", "r4")                             \
    LOAD("r4", 3) LOAD("r5", 4) BNN_FA("r2", "r4", "r5")                                           \
    LOAD("r5", 5) LOAD("r7", 6) BNN_FA("r2", "r5", "r7")                                           \
    LOAD("r7", 7) BNN_HA("r2", "r7")                                                               \
    BNN_FA("r3", "r4", "r5")                                                                       \
    BNN_HA("r3", "r7")                                                                             \
    "movs r6, r3\n"                                                                                \
    BNN_HA("r4", "r7")                                                                             \
    "mov r8, r4\n"                                                                                 \
    "mov r9, r7\n"                                                                                 \
    "movs r3, #0\n"                                                                                \
    "mov r10, r3\n"                                                                                \
    "mov r11, r3\n"                                                                                \
    "mov r12, r3\n"

/* r3 is added to a plane in a high register, the carry goes to r3. */
#define BNN_HA_HIGH(sum)                                                                           \
    "mov r4, " sum "\n"                                                                            \
    BNN_HA("r4", "r3")                                                                             \
    "mov " sum ", r4\n"

/*
 * On the stack: 0 a carry, 4 where the sum goes, 8 the end of the sums, 12 the quads
 * of the list, 16 the inputs.  As in Thumb-2, a quad and an octet come first where
 * their numbers are odd, then pairs of octets.
 */
#define BNN_RUN(name, COUNT, SIZE, LOAD, quad, octet, pair)                                        \
    BNN_NAKED const void *name(const void *list BNN_UNUSED, const uint32_t *x BNN_UNUSED,          \
                               uint32_t *sums BNN_UNUSED, uint32_t classes BNN_UNUSED)             \
    {                                                                                              \
        __asm volatile(BNN_ENTER                                                                   \
                       "sub sp, #20\n"                                                             \
                       "str r2, [sp, #4]\n"                                                        \
                       "lsls r3, r3, #6\n"                                                         \
                       "adds r3, r3, r2\n"                                                         \
                       "str r3, [sp, #8]\n"                                                        \
                       "str r1, [sp, #16]\n"                                                       \
                       "2:\n" COUNT                                                                \
                       "str r3, [sp, #12]\n"                                                       \
                       "lsls r3, r3, #" SIZE "\n"                                                  \
                       "adds r3, r3, r0\n"                                                         \
                       "mov lr, r3\n"                                                              \
                       "ldr r1, [sp, #16]\n"                                                       \
                       BNN_FIRST_OCTET(LOAD)                                                       \
                       "adds r0, #" octet "\n"                                                     \
                       "ldr r3, [sp, #12]\n"                                                       \
                       "lsrs r3, r3, #1\n"                                                         \
                       "bcc 6f\n"                                                                  \
                       LOAD("r3", 0) LOAD("r4", 1) BNN_FA("r2", "r3", "r4")                        \
                       LOAD("r4", 2) LOAD("r5", 3) BNN_FA("r2", "r4", "r5")                        \
                       BNN_FA("r6", "r3", "r4")                                                    \
                       "adds r0, #" quad "\n"                                                      \
                       BNN_HA_HIGH("r8")                                                           \
                       "mov r4, r9\n"                                                              \
                       "eors r4, r3\n" /* at most twelve so far */                                 \
                       "mov r9, r4\n"                                                              \
                       "6:\n"                                                                      \
                       "ldr r3, [sp, #12]\n"                                                       \
                       "lsls r3, r3, #30\n"                                                        \
                       "bmi 3f\n"                                                                  \
                       BNN_OCTET(LOAD, 0)                                                          \
                       "adds r0, #" octet "\n"                                                     \
                       BNN_HA_HIGH("r9")                                                           \
                       "mov r10, r3\n"                                                             \
                       "3:\n"                                                                      \
                       "cmp r0, lr\n"                                                              \
                       "bne 4f\n"                                                                  \
                       "b 5f\n"                                                                    \
                       "4:\n"                                                                      \
                       BNN_OCTET(LOAD, 0)                                                          \
                       "str r3, [sp]\n"                                                            \
                       BNN_OCTET(LOAD, 8)                                                          \
                       "adds r0, #" pair "\n"                                                      \
                       "ldr r4, [sp]\n"                                                            \
                       "mov r5, r9\n"                                                              \
                       BNN_FA("r5", "r3", "r4")                                                    \
                       "mov r9, r5\n"                                                              \
                       BNN_HA_HIGH("r10")                                                          \
                       BNN_HA_HIGH("r11")                                                          \
                       "mov r4, r12\n"                                                             \
                       "orrs r4, r3\n"                                                             \
                       "mov r12, r4\n"                                                             \
                       "cmp r0, lr\n"                                                              \
                       "beq 5f\n"                                                                  \
                       "b 4b\n"                                                                    \
                       "5:\n"                                                                      \
                       "ldr r5, [sp, #4]\n"                                                        \
                       "stmia r5!, {r2, r6}\n"                                                     \
                       "mov r2, r8\n"                                                              \
                       "mov r3, r9\n"                                                              \
                       "mov r4, r10\n"                                                             \
                       "mov r6, r11\n"                                                             \
                       "mov r7, r12\n"                                                             \
                       "stmia r5!, {r2, r3, r4, r6, r7}\n"                                         \
                       "adds r5, #36\n"                                                            \
                       "str r5, [sp, #4]\n"                                                        \
                       "ldr r3, [sp, #8]\n"                                                        \
                       "cmp r5, r3\n"                                                              \
                       "beq 7f\n"                                                                  \
                       "b 2b\n"                                                                    \
                       "7:\n"                                                                      \
                       "add sp, #20\n" BNN_LEAVE);                                                 \
    }

#define BNN_COUNT_HALF                                                                             \
    "ldrh r3, [r0]\n"                                                                              \
    "adds r0, #2\n"
#define BNN_COUNT_BYTE                                                                             \
    "ldrb r3, [r0]\n"                                                                              \
    "adds r0, #1\n"

BNN_RUN(bnn_run_places, BNN_COUNT_HALF, "3", BNN_PLACE, "8", "16", "32")
BNN_RUN(bnn_run_offsets, BNN_COUNT_HALF, "3", BNN_OFFSET, "8", "16", "32")
BNN_RUN(bnn_run_steps, BNN_COUNT_BYTE, "2", BNN_STEP, "4", "8", "16")
#define BNN_HAS_STEPS 1

/* r5 becomes the place of the last r4 of so many blocks of code, of so many bytes each. */
#define BNN_LAST_BLOCKS(most, bytes)                                                               \
    "movs r5, #" most "\n"                                                                         \
    "subs r5, r5, r4\n"                                                                            \
    "movs r4, #" bytes "\n"                                                                        \
    "muls r5, r4, r5\n"                                                                            \
    "adr r4, 1f\n"                                                                                 \
    "adds r5, r5, r4\n"

/* Two planes: r3 is the carry. */
#define BNN_PLANES                                                                                 \
    "ldmia r1!, {r4, r5}\n"                                                                        \
    "ldmia r2!, {r6, r7}\n"                                                                        \
    BNN_FA("r4", "r3", "r6")                                                                       \
    BNN_FA("r5", "r3", "r7")                                                                       \
    "stmia r0!, {r4, r5}\n"

/* sum = a + b: r3 has how many, and in its low byte the planes of each, two to fourteen. */
BNN_NAKED void bnn_add_planes(uint32_t *sum BNN_UNUSED, const uint32_t *a BNN_UNUSED,
                              const uint32_t *b BNN_UNUSED, uint32_t count BNN_UNUSED)
{
    __asm volatile(BNN_ENTER
                   "uxtb r6, r3\n"
                   "lsrs r3, r3, #8\n"
                   "mov r8, r3\n"
                   "movs r4, #16\n"
                   "subs r4, r4, r6\n"
                   "lsls r4, r4, #2\n"
                   "mov r9, r4\n"
                   "lsrs r4, r6, #1\n"
                   BNN_LAST_BLOCKS("7", "26")
                   "mov r12, r5\n"
                   "lsrs r4, r6, #1\n"
                   "bcc 3f\n"
                   "adr r5, 2f\n"
                   "3:\n"
                   "mov r11, r5\n"
                   "4:\n"
                   "movs r3, #0\n"
                   "mov pc, r11\n"
                   ".balign 4\n"
                   "2:\n" /* One plane. */
                   "ldmia r1!, {r4}\n"
                   "ldmia r2!, {r6}\n"
                   "movs r3, r4\n"
                   "ands r3, r6\n"
                   "eors r4, r6\n"
                   "stmia r0!, {r4}\n"
                   "mov pc, r12\n"
                   ".balign 4\n"
                   "1:\n" BNN_PLANES BNN_PLANES BNN_PLANES BNN_PLANES BNN_PLANES BNN_PLANES
                   BNN_PLANES
                   "str r3, [r0]\n"
                   "add r0, r9\n"
                   "add r1, r9\n"
                   "add r2, r9\n"
                   "mov r4, r8\n"
                   "subs r4, #1\n"
                   "mov r8, r4\n"
                   "bne 4b\n" BNN_LEAVE);
}

#define BNN_FEWEST 2u
#define BNN_MOST 14u

/* One plane of m - 2 M, inverted, in r4: r3 is the borrow, r5 the plane of 2 M. */
#define BNN_DIFFERENCE                                                                             \
    "ldmia r0!, {r4}\n"                                                                            \
    "mvns r4, r4\n"                                                                                \
    BNN_FA("r4", "r3", "r5")                                                                       \
    "ldmia r1!, {r5}\n"
/* 26 bytes: the next bit of r2 is added; r6 is the inverted carry. */
#define BNN_STAGE                                                                                  \
    BNN_DIFFERENCE                                                                                 \
    "lsrs r2, r2, #1\n"                                                                            \
    "bcc 2f\n"                                                                                     \
    "ands r6, r4\n"                                                                                \
    "b 3f\n"                                                                                       \
    "2:\n"                                                                                         \
    "orrs r6, r4\n"                                                                                \
    "3:\n"
/* 28 bytes: the next plane at r2 is added; r6 is the carry. */
#define BNN_STAGE_OF_LANES                                                                         \
    BNN_DIFFERENCE                                                                                 \
    "mvns r4, r4\n"                                                                                \
    "ldmia r2!, {r7}\n"                                                                            \
    BNN_CARRY("r4", "r6", "r7")
#define BNN_FIVE(stage) stage stage stage stage stage

/* m, M, addend, planes less 1: the sign of m - 2 M + addend, the addend that of all lanes. */
BNN_NAKED uint32_t bnn_sign(const uint32_t *m BNN_UNUSED, const uint32_t *mark BNN_UNUSED,
                            uint32_t addend BNN_UNUSED, uint32_t stages BNN_UNUSED)
{
    __asm volatile(".syntax unified\n"
                   "push {r4-r6, lr}\n"
                   "movs r4, r3\n"
                   BNN_LAST_BLOCKS("15", "26")
                   "mov r12, r5\n"
                   "movs r3, #0\n"
                   "movs r5, #0\n"
                   "mvns r6, r3\n"
                   "mov pc, r12\n"
                   ".balign 4\n"
                   "1:\n" BNN_FIVE(BNN_STAGE) BNN_FIVE(BNN_STAGE) BNN_FIVE(BNN_STAGE)
                   "ldr r0, [r0]\n"
                   "eors r0, r3\n"
                   "eors r0, r5\n"
                   "eors r0, r6\n"
                   "lsrs r2, r2, #1\n"
                   "bcs 2f\n"
                   "mvns r0, r0\n"
                   "2:\n"
                   "pop {r4-r6, pc}\n");
}

/* The same with an addend for each lane. */
BNN_NAKED uint32_t bnn_sign_lanes(const uint32_t *m BNN_UNUSED, const uint32_t *mark BNN_UNUSED,
                                  const uint32_t *addend BNN_UNUSED, uint32_t stages BNN_UNUSED)
{
    __asm volatile(".syntax unified\n"
                   "push {r4-r7, lr}\n"
                   "movs r4, r3\n"
                   BNN_LAST_BLOCKS("15", "28")
                   "mov r12, r5\n"
                   "movs r3, #0\n"
                   "movs r5, #0\n"
                   "movs r6, #0\n"
                   "mov pc, r12\n"
                   ".balign 4\n"
                   "1:\n" BNN_FIVE(BNN_STAGE_OF_LANES) BNN_FIVE(BNN_STAGE_OF_LANES)
                   BNN_FIVE(BNN_STAGE_OF_LANES)
                   "ldr r0, [r0]\n"
                   "ldr r2, [r2]\n"
                   "eors r0, r3\n"
                   "eors r0, r5\n"
                   "eors r0, r6\n"
                   "eors r0, r2\n"
                   "pop {r4-r7, pc}\n");
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
