/*
 * The loop of bnn_add_listed for Thumb-1; not part of the interface.
 */
#ifndef BNN_ADDERS_THUMB1_H
#define BNN_ADDERS_THUMB1_H

#include "bnn_low.h"
#include "bnn_thumb1.h"

/* What it is given, and between which addresses the carries go. */
typedef struct bnn_listed {
    bnn_low_t low;
    const uint32_t *list, *rows;
    uint32_t *carries, *end;
} bnn_listed_t;

#define BNN_ROW(r, n)                                                                              \
    "ldr " r ", [r0, #4 * " #n "]\n"                                                               \
    "lsls " r ", " r ", #2\n"                                                                      \
    "ldr " r ", [r1, " r "]\n"

/* r9 is the plane of eights, r10 where the carries go, r11 their end. */
BNN_NAKED void bnn_add_rows(bnn_listed_t *listed BNN_UNUSED)
{
    __asm volatile(BNN_ENTER
                   "push {r0}\n"
                   "ldmia r0!, {r2, r3, r4, r5}\n"
                   "movs r6, r3\n"
                   "mov r8, r4\n"
                   "mov r9, r5\n"
                   "ldmia r0!, {r1, r3, r4, r5}\n"
                   "mov r10, r4\n"
                   "mov r11, r5\n"
                   "movs r0, r1\n"
                   "movs r1, r3\n"
                   "1:\n" BNN_OCTET(BNN_ROW, 0)
                   "mov r12, r3\n" BNN_OCTET(BNN_ROW, 8)
                   "adds r0, #64\n"
                   "mov r4, r12\n"
                   "mov r5, r9\n" BNN_FA("r5", "r3", "r4")
                   "mov r9, r5\n"
                   "mov r4, r10\n"
                   "stmia r4!, {r3}\n"
                   "mov r10, r4\n"
                   "cmp r4, r11\n"
                   "beq 2f\n"
                   "b 1b\n"
                   "2:\n"
                   "pop {r0}\n"
                   "movs r3, r6\n"
                   "mov r4, r8\n"
                   "mov r5, r9\n"
                   "stmia r0!, {r2, r3, r4, r5}\n" BNN_LEAVE);
}

#endif
