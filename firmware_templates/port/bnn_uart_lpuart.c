/*
 * The LPUART of NXP's i.MX RT, without its FIFOs.
 *
 * Source: i.MX RT1060 Processor Reference Manual (IMXRT1060RM), chapter Low
 * Power Universal Asynchronous Receiver/Transmitter.
 */
#include "bnn_board.h"
#include "bnn_reg.h"
#include "bnn_uart.h"

#define LPUART_GLOBAL BNN_REG(BNN_BOARD_UART_ADDRESS + 0x08u)
#define LPUART_BAUD BNN_REG(BNN_BOARD_UART_ADDRESS + 0x10u)
#define LPUART_STAT BNN_REG(BNN_BOARD_UART_ADDRESS + 0x14u)
#define LPUART_CTRL BNN_REG(BNN_BOARD_UART_ADDRESS + 0x18u)
#define LPUART_DATA BNN_REG(BNN_BOARD_UART_ADDRESS + 0x1cu)
#define GLOBAL_RST (1u << 1)
#define DATA_FRETSC (1u << 13) /* this byte's framing error */
#define BAUD_OSR_SHIFT 24u
#define BAUD_SBR 0x1fffu
#define MOST_SAMPLES 32u
#define FEWEST_SAMPLES 8u /* fewer than 8 need both edges of the clock */
#define STAT_FE (1u << 17)
#define STAT_OR (1u << 19)
#define STAT_RDRF (1u << 21)
#define STAT_TC (1u << 22)
#define STAT_TDRE (1u << 23)
#define CTRL_RE (1u << 18)
#define CTRL_TE (1u << 19)
#define CTRL_RIE (1u << 21)

/*
 * The clock is divided by n samples a bit, times a divisor: the n whose product
 * comes nearest to what is wanted, and of several the largest.
 */
static uint32_t samples(uint32_t wanted)
{
    uint32_t best = MOST_SAMPLES;
    uint32_t least = UINT32_MAX;

    for (uint32_t n = MOST_SAMPLES; n >= FEWEST_SAMPLES; n--) {
        const uint32_t product = n * bnn_nearest(wanted, n);
        const uint32_t off = product > wanted ? product - wanted : wanted - product;

        if (off < least) {
            best = n;
            least = off;
        }
    }
    return best;
}

uint32_t bnn_uart_baud(uint32_t hz, uint32_t baud)
{
    const uint32_t wanted = bnn_nearest(hz, baud);
    const uint32_t n = samples(wanted);
    const uint32_t divisor = bnn_nearest(wanted, n);

    return divisor < 1u || divisor > BAUD_SBR ? 0u : bnn_nearest(hz, n * divisor);
}

void bnn_uart_start(uint32_t hz, uint32_t baud)
{
    const uint32_t wanted = bnn_nearest(hz, baud);
    const uint32_t n = samples(wanted);

    LPUART_GLOBAL = GLOBAL_RST;
    LPUART_GLOBAL = 0u;
    LPUART_BAUD = ((n - 1u) << BAUD_OSR_SHIFT) | bnn_nearest(wanted, n);
    LPUART_CTRL = CTRL_RE | CTRL_TE | CTRL_RIE;
}

uint32_t bnn_uart_status(void)
{
    const uint32_t status = LPUART_STAT;
    return ((status & STAT_RDRF) != 0u ? (uint32_t)BNN_UART_BYTE : 0u) |
           ((status & STAT_OR) != 0u ? (uint32_t)BNN_UART_LOST : 0u);
}

uint32_t bnn_uart_take(void)
{
    /* The byte first: while it waits, nothing clears the overrun for good. */
    const uint32_t data = LPUART_DATA;
    LPUART_STAT = STAT_OR | STAT_FE;
    return (data & 0xffu) | (data & DATA_FRETSC) / (DATA_FRETSC / BNN_UART_GARBLED);
}

bool bnn_uart_can_send(void)
{
    return (LPUART_STAT & STAT_TDRE) != 0u;
}

void bnn_uart_send(uint8_t byte)
{
    LPUART_DATA = byte;
}

bool bnn_uart_sent(void)
{
    return (LPUART_STAT & STAT_TC) != 0u;
}
