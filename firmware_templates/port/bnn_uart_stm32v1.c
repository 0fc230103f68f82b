/* The USART of STM32 F1, F2 and F4, with SR and DR: RM0390 section 25.6. */
#include "bnn_board.h"
#include "bnn_reg.h"
#include "bnn_uart.h"

#define USART_SR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x00u)
#define USART_DR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x04u)
#define USART_BRR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x08u)
#define USART_CR1 BNN_REG(BNN_BOARD_UART_ADDRESS + 0x0cu)
#define SR_ORE (1u << 3)
#define SR_RXNE (1u << 5)
#define SR_TXE (1u << 7)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_RXNEIE (1u << 5)
#define CR1_UE (1u << 13)

void bnn_uart_start(uint32_t hz)
{
    /* Oversampling by 16: the divisor in sixteenths is simply clock / baud, 25.4.4. */
    USART_BRR = (hz + BNN_BOARD_UART_BAUD / 2u) / BNN_BOARD_UART_BAUD;
    USART_CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
}

uint32_t bnn_uart_status(void)
{
    const uint32_t status = USART_SR;
    return ((status & SR_RXNE) != 0u ? (uint32_t)BNN_UART_BYTE : 0u) |
           ((status & SR_ORE) != 0u ? (uint32_t)BNN_UART_LOST : 0u);
}

uint8_t bnn_uart_take(void)
{
    /* Reading SR, as the status did, then DR clears ORE: 25.6.1. */
    return (uint8_t)USART_DR;
}

bool bnn_uart_can_send(void)
{
    return (USART_SR & SR_TXE) != 0u;
}

void bnn_uart_send(uint8_t byte)
{
    USART_DR = byte;
}
