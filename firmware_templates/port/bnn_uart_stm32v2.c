/*
 * The STM32's newer USART, with ISR, RDR and TDR: F3, F7, G0, G4, H7, L4, U5.
 *
 * Sources: RM0316 (F303), RM0410 (F767), RM0444 (G071), RM0440 (G474), RM0433
 * (H743), RM0351 (L476) and RM0456 (U575), their chapters on the USART.  All
 * have these registers; some also a FIFO, which reset leaves off.
 */
#include "bnn_uart.h"

#include "bnn_board.h"
#include "bnn_reg.h"

#define USART_CR1 BNN_REG(BNN_BOARD_UART_ADDRESS + 0x00u)
#define USART_CR2 BNN_REG(BNN_BOARD_UART_ADDRESS + 0x04u)
#define USART_CR3 BNN_REG(BNN_BOARD_UART_ADDRESS + 0x08u)
#define USART_BRR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x0cu)
#define USART_ISR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x1cu)
#define USART_ICR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x20u)
#define USART_RDR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x24u)
#define USART_TDR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x28u)
#define CR1_UE (1u << 0)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_RXNEIE (1u << 5)
#define ISR_FE (1u << 1)
#define ISR_ORE (1u << 3)
#define ISR_RXNE (1u << 5)
#define ISR_TC (1u << 6)
#define ISR_TXE (1u << 7)
#define ICR_FECF (1u << 1)
#define ICR_ORECF (1u << 3)

uint32_t bnn_uart_baud(uint32_t hz, uint32_t baud)
{
    return bnn_divided(hz, baud, 16u, 0xffffu);
}

void bnn_uart_start(uint32_t hz, uint32_t baud)
{
    /* The format and the rate can only be written while it is off. */
    USART_CR1 = 0u;
    USART_CR2 = 0u;
    USART_CR3 = 0u;
    /* Oversampling by 16, so that the divisor is the ratio itself. */
    USART_BRR = bnn_nearest(hz, baud);
    USART_CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
}

uint32_t bnn_uart_status(void)
{
    const uint32_t isr = USART_ISR;
    return ((isr & ISR_RXNE) != 0u ? (uint32_t)BNN_UART_BYTE : 0u) |
           ((isr & ISR_ORE) != 0u ? (uint32_t)BNN_UART_LOST : 0u);
}

uint32_t bnn_uart_take(void)
{
    /* FE is of the byte that waits. */
    const uint32_t garbled = (USART_ISR & ISR_FE) * (BNN_UART_GARBLED / ISR_FE);
    /* Unlike the older USART's, these are not cleared by reading; an overrun holds the interrupt. */
    USART_ICR = ICR_ORECF | ICR_FECF;
    return (USART_RDR & 0xffu) | garbled;
}

bool bnn_uart_can_send(void)
{
    return (USART_ISR & ISR_TXE) != 0u;
}

void bnn_uart_send(uint8_t byte)
{
    USART_TDR = byte;
}

bool bnn_uart_sent(void)
{
    return (USART_ISR & ISR_TC) != 0u;
}
