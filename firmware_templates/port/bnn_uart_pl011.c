/* Arm's PrimeCell UART, PL011: DDI 0183 section 3.3. Without its FIFOs. */
#include "bnn_board.h"
#include "bnn_reg.h"
#include "bnn_uart.h"

#define UART_DR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x00u)
#define UART_RSR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x04u)
#define UART_FR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x18u)
#define UART_IBRD BNN_REG(BNN_BOARD_UART_ADDRESS + 0x24u)
#define UART_FBRD BNN_REG(BNN_BOARD_UART_ADDRESS + 0x28u)
#define UART_LCRH BNN_REG(BNN_BOARD_UART_ADDRESS + 0x2cu)
#define UART_CR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x30u)
#define UART_IMSC BNN_REG(BNN_BOARD_UART_ADDRESS + 0x38u)
#define UART_ICR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x44u)
#define DR_FRAMING (1u << 8) /* a break has it too */
#define RSR_OVERRUN (1u << 3)
#define FR_BUSY (1u << 3)
#define FR_RX_EMPTY (1u << 4)
#define FR_TX_FULL (1u << 5)
#define LCRH_8_BITS (3u << 5)
#define CR_ON ((1u << 0) | (1u << 8) | (1u << 9)) /* UARTEN, TXE, RXE */
#define INT_RX (1u << 4)

#if BNN_UART_GARBLED != 0x100u
#error "bnn_uart_take() leaves the framing error where the UART has it"
#endif

/* The divisor of the clock by 16 times the rate is in 64ths: 3.3.6. */

uint32_t bnn_uart_baud(uint32_t hz, uint32_t baud)
{
    return bnn_divided(4u * hz, baud, 64u, 64u * 0xffffu);
}

void bnn_uart_start(uint32_t hz, uint32_t baud)
{
    const uint32_t divisor = bnn_nearest(4u * hz, baud);
    UART_CR = 0u;
    UART_IBRD = divisor / 64u;
    UART_FBRD = divisor % 64u;
    UART_LCRH = LCRH_8_BITS; /* after the divisor: writing it takes that over */
    UART_IMSC = INT_RX;
    UART_CR = CR_ON;
}

uint32_t bnn_uart_status(void)
{
    return ((UART_FR & FR_RX_EMPTY) == 0u ? (uint32_t)BNN_UART_BYTE : 0u) |
           ((UART_RSR & RSR_OVERRUN) != 0u ? (uint32_t)BNN_UART_LOST : 0u);
}

uint32_t bnn_uart_take(void)
{
    /* Before the byte: the next one asks anew.  Any value clears the errors. */
    UART_ICR = INT_RX;
    const uint32_t data = UART_DR;
    UART_RSR = 0u;
    return data & (DR_FRAMING | 0xffu);
}

bool bnn_uart_can_send(void)
{
    return (UART_FR & FR_TX_FULL) == 0u;
}

void bnn_uart_send(uint8_t byte)
{
    UART_DR = byte;
}

bool bnn_uart_sent(void)
{
    return (UART_FR & FR_BUSY) == 0u;
}
