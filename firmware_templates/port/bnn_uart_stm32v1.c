/* The USART of STM32 F1, F2 and F4, with SR and DR: RM0390 section 25.6. */
#include "bnn_board.h"
#include "bnn_reg.h"
#include "bnn_uart.h"

#define USART_SR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x00u)
#define USART_DR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x04u)
#define USART_BRR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x08u)
#define USART_CR1 BNN_REG(BNN_BOARD_UART_ADDRESS + 0x0cu)
#define SR_FE (1u << 1)
#define SR_ORE (1u << 3)
#define SR_RXNE (1u << 5)
#define SR_TC (1u << 6)
#define SR_TXE (1u << 7)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_RXNEIE (1u << 5)
#define CR1_UE (1u << 13)

uint32_t bnn_uart_baud(uint32_t hz, uint32_t baud)
{
    return bnn_divided(hz, baud, 16u, 0xffffu);
}

void bnn_uart_start(uint32_t hz, uint32_t baud)
{
    /* Oversampling by 16: the divisor in sixteenths is simply clock / baud, 25.4.4. */
    USART_BRR = bnn_nearest(hz, baud);
    USART_CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
}

uint32_t bnn_uart_status(void)
{
    const uint32_t status = USART_SR;
    return ((status & SR_RXNE) != 0u ? (uint32_t)BNN_UART_BYTE : 0u) |
           ((status & SR_ORE) != 0u ? (uint32_t)BNN_UART_LOST : 0u);
}

uint32_t bnn_uart_take(void)
{
    /* FE is of the byte that waits; reading SR, then DR clears it and ORE: 25.6.1. */
    const uint32_t garbled = (USART_SR & SR_FE) * (BNN_UART_GARBLED / SR_FE);
    return (USART_DR & 0xffu) | garbled;
}

bool bnn_uart_can_send(void)
{
    return (USART_SR & SR_TXE) != 0u;
}

void bnn_uart_send(uint8_t byte)
{
    USART_DR = byte;
}

bool bnn_uart_sent(void)
{
    return (USART_SR & SR_TC) != 0u;
}
