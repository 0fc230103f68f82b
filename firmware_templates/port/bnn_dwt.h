/*
 * The core's cycle counter: ARMv7-M architecture reference manual (DDI 0403E)
 * C1.8, the same in ARMv8-M (DDI 0553).  ARMv6-M has none.
 */
#ifndef BNN_DWT_H
#define BNN_DWT_H

#include "bnn_counter.h"
#include "bnn_reg.h"

#define BNN_DWT_CYCCNT BNN_REG(0xe0001004u)

/* True if it counts; emulators have it not, and neither do some chips. */
static inline bool bnn_dwt_start(void)
{
#if defined(__ARM_ARCH_ISA_THUMB) && __ARM_ARCH_ISA_THUMB >= 2
    BNN_REG(0xe000edfcu) |= 1u << 24; /* DEMCR.TRCENA */
    BNN_REG(0xe0001fb0u) = 0xc5acce55u; /* DWT_LAR: the Cortex-M7 locks it, others ignore this */
    BNN_DWT_CYCCNT = 0u;
    BNN_REG(0xe0001000u) |= 1u << 0; /* DWT_CTRL.CYCCNTENA */
    return bnn_advances(&BNN_DWT_CYCCNT);
#else
    return false;
#endif
}

#endif
