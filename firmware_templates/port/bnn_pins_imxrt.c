/*
 * i.MX RT1062: LPUART6 on the pads AD_B0_02 (TX) and AD_B0_03 (RX), clocked by the
 * 24 MHz crystal whatever the CPU's clock is; and the watchdog that reset starts.
 *
 * Source: IMXRT1060RM, chapters CCM, IOMUXC and RTWDOG (WDOG3).
 */
#include "bnn_board.h"
#include "bnn_pins.h"
#include "bnn_reg.h"

#define CCM_CSCDR1 BNN_REG(0x400fc024u)
#define CSCDR1_UART_PODF 0x3fu
#define CSCDR1_UART_FROM_CRYSTAL (1u << 6)
#define CCM_CCGR3 BNN_REG(0x400fc074u)
#define CCGR3_LPUART6 (3u << 6)

#define MUX_AD_B0_02 BNN_REG(0x401f80c4u)
#define MUX_AD_B0_03 BNN_REG(0x401f80c8u)
#define MUX_LPUART6 2u
#define PAD_AD_B0_03 BNN_REG(0x401f82b8u)
/* Hysteresis, 22 kilohm up, pull enabled, 100 MHz, R0/6. */
#define PAD_PULLED_UP ((1u << 16) | (3u << 14) | (1u << 13) | (1u << 12) | (2u << 6) | (6u << 3))
#define LPUART6_RX_SELECT_INPUT BNN_REG(0x401f8550u)
#define LPUART6_TX_SELECT_INPUT BNN_REG(0x401f8554u)
#define SELECT_AD_B0 1u

#define RTWDOG_CS BNN_REG(0x400bc000u)
#define RTWDOG_CNT BNN_REG(0x400bc004u)
#define RTWDOG_TOVAL BNN_REG(0x400bc008u)
#define RTWDOG_UNLOCK 0xd928c520u
#define CS_UPDATE (1u << 5)
#define CS_ENABLED (1u << 7)
#define CS_32_BITS (1u << 13)

static void stop_watchdog(void)
{
    if ((RTWDOG_CS & CS_ENABLED) != 0u) {
        RTWDOG_CNT = RTWDOG_UNLOCK;
        RTWDOG_TOVAL = 0xffffu;
        RTWDOG_CS = CS_UPDATE | CS_32_BITS;
    }
}

void bnn_pins_start(void)
{
    stop_watchdog();
    CCM_CSCDR1 = (CCM_CSCDR1 & ~CSCDR1_UART_PODF) | CSCDR1_UART_FROM_CRYSTAL;
    CCM_CCGR3 |= CCGR3_LPUART6;
    (void)CCM_CCGR3;
    PAD_AD_B0_03 = PAD_PULLED_UP;
    LPUART6_RX_SELECT_INPUT = SELECT_AD_B0;
    LPUART6_TX_SELECT_INPUT = SELECT_AD_B0;
    MUX_AD_B0_02 = MUX_LPUART6;
    MUX_AD_B0_03 = MUX_LPUART6;
}
