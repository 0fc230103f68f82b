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
#define OVERSAMPLING 16u
#define BAUD_OSR ((OVERSAMPLING - 1u) << 24)
#define STAT_OR (1u << 19)
#define STAT_RDRF (1u << 21)
#define STAT_TDRE (1u << 23)
#define CTRL_RE (1u << 18)
#define CTRL_TE (1u << 19)
#define CTRL_RIE (1u << 21)

void bnn_uart_start(uint32_t hz)
{
    const uint32_t step = OVERSAMPLING * BNN_BOARD_UART_BAUD;
    LPUART_GLOBAL = GLOBAL_RST;
    LPUART_GLOBAL = 0u;
    LPUART_BAUD = BAUD_OSR | ((hz + step / 2u) / step);
    LPUART_CTRL = CTRL_RE | CTRL_TE | CTRL_RIE;
}

uint32_t bnn_uart_status(void)
{
    const uint32_t status = LPUART_STAT;
    return ((status & STAT_RDRF) != 0u ? (uint32_t)BNN_UART_BYTE : 0u) |
           ((status & STAT_OR) != 0u ? (uint32_t)BNN_UART_LOST : 0u);
}

uint8_t bnn_uart_take(void)
{
    /* The byte first: while it waits, nothing clears the overrun for good. */
    const uint8_t byte = (uint8_t)LPUART_DATA;
    LPUART_STAT = STAT_OR;
    return byte;
}

bool bnn_uart_can_send(void)
{
    return (LPUART_STAT & STAT_TDRE) != 0u;
}

void bnn_uart_send(uint8_t byte)
{
    LPUART_DATA = byte;
}
