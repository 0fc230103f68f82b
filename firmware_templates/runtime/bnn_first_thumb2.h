/* The inner loops of the fast FIR filter in assembly, for cores with DSP instructions. */
#ifndef BNN_FIRST_THUMB2_H
#define BNN_FIRST_THUMB2_H

#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && defined(__GNUC__)
/*
 * r0: weights, r1: sums, r3 to r6 and r8 to r10: the seven sums of a filter, r11
 * and r12: two pairs of weights, r2 and lr: two pairs of pixels.  Pixels wait in
 * the registers of the FPU, and r7 holds the end of the sums or where they begin;
 * without an FPU pixels are loaded, by r7.
 */
#define BNN_FIR_ASM
#if defined(__ARM_FP)
#define BNN_FIR_ENTER "push {r7}\n\tmov r7, r2\n\tvldmia r3, {s0-s31}\n"
#define BNN_FIR_LOOP "cmp r1, r7\n\tbne 1b\n\tpop {r7}"
#define BNN_FIR_ENTER_NEW "push {r2, r4, r7}\n\tmov r7, r4\n\tvldmia r3, {s0-s31}\n"
#define BNN_FIR_NEW(sum, x, w) "smlad " sum ", " x ", " w ", r7\n\t"
#define BNN_FIR_CONSTANT ""
#define BNN_FIR_BIAS_TO "r7"
#define BNN_FIR_SPREAD ""
#define BNN_FIR_LOAD(even, odd, offset) "vmov r2, lr, s" even ", s" odd "\n\t"
#define BNN_FIR_CLOBBERED                                                                          \
    "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "s14", \
        "s15", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23", "s24", "s25", "s26", "s27", \
        "s28", "s29", "s30", "s31",
#else
#define BNN_FIR_ENTER "push {r2, r7}\n\tmov r7, r3\n"
#define BNN_FIR_LOOP "ldr r2, [sp]\n\tcmp r1, r2\n\tbne 1b\n\tpop {r2, r7}"
#define BNN_FIR_ENTER_NEW "push {r2, r4, r7}\n\tmov r7, r3\n"
#define BNN_FIR_NEW(sum, x, w) BNN_MAC(sum, x, w)
#define BNN_FIR_CONSTANT "ldr r3, [sp, #4]\n\t" BNN_FIR_SPREAD
#define BNN_FIR_BIAS_TO "r3"
#define BNN_FIR_SPREAD                                                                             \
    "mov r4, r3\n\tmov r5, r3\n\tmov r6, r3\n\tmov r8, r3\n\tmov r9, r3\n\tmov r10, r3\n\t"
#define BNN_FIR_LOAD(even, odd, offset) "ldrd r2, lr, [r7, #" offset "]\n\t"
#define BNN_FIR_CLOBBERED
#endif
/* Sums that begin with what r4 is, or with what it points to, filter by filter. */
#define BNN_FIR_LOOP_NEW "ldr r2, [sp]\n\tcmp r1, r2\n\tbne 1b\n\tpop {r2, r4, r7}"
#define BNN_FIR_BIAS                                                                               \
    "ldr r2, [sp, #4]\n\t"                                                                         \
    "ldr " BNN_FIR_BIAS_TO ", [r2], #4\n\t"                                                        \
    "str r2, [sp, #4]\n\t"                                                                         \
    "sub " BNN_FIR_BIAS_TO ", " BNN_FIR_BIAS_TO ", #0x40000000\n\t" BNN_FIR_SPREAD
#define BNN_MAC(sum, x, w) "smlad " sum ", " x ", " w ", " sum "\n\t"
/* Eight pairs of pixels: the first weights go with the first seven, the others with the last. */
#define BNN_FIR_ROW(FIRST, s0, s1, s2, s3, s4, s5, s6, s7, b0, b2, b4, b6)                         \
    "ldrd r11, r12, [r0], #8\n\t"                                                                  \
    BNN_FIR_LOAD(s0, s1, b0)                                                                       \
    FIRST("r3", "r2", "r11") BNN_MAC("r3", "lr", "r12") FIRST("r4", "lr", "r11")                   \
    BNN_FIR_LOAD(s2, s3, b2)                                                                       \
    BNN_MAC("r4", "r2", "r12") FIRST("r5", "r2", "r11")                                            \
    BNN_MAC("r5", "lr", "r12") FIRST("r6", "lr", "r11")                                            \
    BNN_FIR_LOAD(s4, s5, b4)                                                                       \
    BNN_MAC("r6", "r2", "r12") FIRST("r8", "r2", "r11")                                            \
    BNN_MAC("r8", "lr", "r12") FIRST("r9", "lr", "r11")                                            \
    BNN_FIR_LOAD(s6, s7, b6)                                                                       \
    BNN_MAC("r9", "r2", "r12") FIRST("r10", "r2", "r11") BNN_MAC("r10", "lr", "r12")
#define BNN_FIR_FILTER(BEGIN, FIRST, END)                                                          \
    BEGIN                                                                                          \
    BNN_FIR_ROW(FIRST, "0", "1", "2", "3", "4", "5", "6", "7", "0", "8", "16", "24")               \
    BNN_FIR_ROW(BNN_MAC, "8", "9", "10", "11", "12", "13", "14", "15", "32", "40", "48", "56")     \
    BNN_FIR_ROW(BNN_MAC, "16", "17", "18", "19", "20", "21", "22", "23", "64", "72", "80", "88")   \
    BNN_FIR_ROW(BNN_MAC, "24", "25", "26", "27", "28", "29", "30", "31", "96", "104", "112",       \
                "120")                                                                             \
    "stmia r1!, {r3, r4, r5, r6, r8, r9, r10}\n\t" END
#define BNN_FIR_RUN(ENTER, BEGIN, FIRST, END, LOOP)                                                \
    __asm__ volatile(ENTER "1:\n\t" BNN_FIR_FILTER(BEGIN, FIRST, END)                              \
                         BNN_FIR_FILTER(BEGIN, FIRST, END) LOOP                                    \
                     : "+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3), "+r"(r4)                            \
                     :                                                                             \
                     : "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr",                          \
                       BNN_FIR_CLOBBERED "cc", "memory")
#define BNN_FIR_KEPT "ldmia r1, {r3, r4, r5, r6, r8, r9, r10}\n\t"
/* 2,660 bytes on: BNN_FIR_THREE words less the seven that r1 is ahead. */
#define BNN_FIR_COPY "add r2, r1, #2660\n\tstmia r2, {r3, r4, r5, r6, r8, r9, r10}\n\t"
#endif

#endif
