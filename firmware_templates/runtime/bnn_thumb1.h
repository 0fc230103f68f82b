/*
 * What the assembly for Thumb-1 shares: carry-save adders in eight registers.  Not
 * part of the interface.
 */
#ifndef BNN_THUMB1_H
#define BNN_THUMB1_H

#include <stdint.h>

#define BNN_NAKED __attribute__((naked, noinline, unused)) static
#define BNN_UNUSED __attribute__((unused))

/* gcc takes the old syntax for Thumb-1.  All of r4 to r11 are saved. */
#define BNN_ENTER                                                                                  \
    ".syntax unified\n"                                                                            \
    "push {r4-r7, lr}\n"                                                                           \
    "mov r4, r8\n"                                                                                 \
    "mov r5, r9\n"                                                                                 \
    "mov r6, r10\n"                                                                                \
    "mov r7, r11\n"                                                                                \
    "push {r4-r7}\n"
#define BNN_LEAVE                                                                                  \
    "pop {r4-r7}\n"                                                                                \
    "mov r8, r4\n"                                                                                 \
    "mov r9, r5\n"                                                                                 \
    "mov r10, r6\n"                                                                                \
    "mov r11, r7\n"                                                                                \
    "pop {r4-r7, pc}\n"

/* The carry of sum + a + b goes to a; b is overwritten with a + b. */
#define BNN_CARRY(sum, a, b)                                                                       \
    "eors " b ", " a "\n"                                                                          \
    "eors " a ", " sum "\n"                                                                        \
    "bics " a ", " b "\n"                                                                          \
    "eors " a ", " sum "\n"

/* sum gets sum + a + b, the carry goes to a; b is overwritten. */
#define BNN_FA(sum, a, b) BNN_CARRY(sum, a, b) "eors " sum ", " b "\n"

/* sum gets sum + a, the carry goes to a. */
#define BNN_HA(sum, a)                                                                             \
    "eors " sum ", " a "\n"                                                                        \
    "bics " a ", " sum "\n"

/*
 * r2, r6 and r8 are the planes of ones, twos and fours.  Eight inputs from entry n on:
 * the carry, worth eight, goes to r3.
 */
#define BNN_OCTET(LOAD, n)                                                                         \
    LOAD("r3", (n)) LOAD("r4", (n + 1)) BNN_FA("r2", "r3", "r4")                                   \
    LOAD("r4", (n + 2)) LOAD("r5", (n + 3)) BNN_FA("r2", "r4", "r5")                               \
    BNN_FA("r6", "r3", "r4")                                                                       \
    LOAD("r4", (n + 4)) LOAD("r5", (n + 5)) BNN_FA("r2", "r4", "r5")                               \
    LOAD("r5", (n + 6)) LOAD("r7", (n + 7)) BNN_FA("r2", "r5", "r7")                               \
    BNN_FA("r6", "r4", "r5")                                                                       \
    "mov r7, r8\n"                                                                                 \
    BNN_FA("r7", "r3", "r4")                                                                       \
    "mov r8, r7\n"

#endif
