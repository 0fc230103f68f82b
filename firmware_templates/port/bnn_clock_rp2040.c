/*
 * RP2040: the crystal's 12 MHz for everything, without a PLL.
 *
 * Reset selects a ring oscillator of 1.8 to 12 MHz, which no baud rate can be
 * made from.  The crystal needs no voltage and no divider to be right.
 *
 * Source: RP2040 Datasheet, chapters Clocks and Crystal Oscillator (XOSC).
 */
#include "bnn_board.h"
#include "bnn_clock.h"
#include "bnn_reg.h"

#define XOSC_CTRL BNN_REG(0x40024000u)
#define XOSC_STATUS BNN_REG(0x40024004u)
#define XOSC_STARTUP BNN_REG(0x4002400cu)
#define CTRL_1_TO_15_MHZ 0xaa0u
#define CTRL_ENABLE (0xfabu << 12)
#define STATUS_STABLE (1u << 31)
/* In 256 cycles of the crystal, 1 ms: 12 MHz / 1000 / 256. */
#define STARTUP_1_MS 47u

#define CLK_REF_CTRL BNN_REG(0x40008030u)
#define CLK_REF_DIV BNN_REG(0x40008034u)
#define CLK_REF_SELECTED BNN_REG(0x40008038u)
#define CLK_SYS_CTRL BNN_REG(0x4000803cu)
#define CLK_SYS_DIV BNN_REG(0x40008040u)
#define CLK_SYS_SELECTED BNN_REG(0x40008044u)
#define CLK_PERI_CTRL BNN_REG(0x40008048u)
#define REF_SRC_XOSC 2u
#define SYS_SRC_REF 0u
#define DIV_1 (1u << 8)
#define PERI_ENABLE (1u << 11) /* its source: clk_sys */

static bool on_crystal;

uint32_t bnn_clock_start(void)
{
    XOSC_STARTUP = STARTUP_1_MS;
    XOSC_CTRL = CTRL_ENABLE | CTRL_1_TO_15_MHZ;
    if (bnn_wait_for(&XOSC_STATUS, STATUS_STABLE, STATUS_STABLE)) {
        /* The selected bits are one-hot: bit 2 is source 2, bit 0 source 0. */
        CLK_SYS_CTRL = SYS_SRC_REF;
        CLK_REF_CTRL = REF_SRC_XOSC;
        on_crystal = bnn_wait_for(&CLK_SYS_SELECTED, 1u << SYS_SRC_REF, 1u << SYS_SRC_REF) &&
                     bnn_wait_for(&CLK_REF_SELECTED, 1u << REF_SRC_XOSC, 1u << REF_SRC_XOSC);
    }
    CLK_REF_DIV = DIV_1;
    CLK_SYS_DIV = DIV_1;
    CLK_PERI_CTRL = PERI_ENABLE;
    return on_crystal ? BNN_BOARD_UART_HZ : BNN_BOARD_UART_RESET_HZ;
}

uint32_t bnn_clock_hz(void)
{
    return on_crystal ? BNN_BOARD_CLOCK_HZ : BNN_BOARD_RESET_HZ;
}
