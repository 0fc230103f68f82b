/* The APB UART of Arm's Cortex-M System Design Kit: DDI 0479 section 4.3. */
#include "bnn_board.h"
#include "bnn_reg.h"
#include "bnn_uart.h"

#define UART_DATA BNN_REG(BNN_BOARD_UART_ADDRESS + 0x00u)
#define UART_STATE BNN_REG(BNN_BOARD_UART_ADDRESS + 0x04u)
#define UART_CTRL BNN_REG(BNN_BOARD_UART_ADDRESS + 0x08u)
#define UART_INTCLEAR BNN_REG(BNN_BOARD_UART_ADDRESS + 0x0cu)
#define UART_BAUDDIV BNN_REG(BNN_BOARD_UART_ADDRESS + 0x10u)
#define STATE_TX_FULL (1u << 0)
#define STATE_RX_FULL (1u << 1)
#define STATE_RX_OVERRUN (1u << 3)
#define CTRL_TX (1u << 0)
#define CTRL_RX (1u << 1)
#define CTRL_RX_INTERRUPT (1u << 3)
#define INT_RX (1u << 1)

/* DDI 0479 4.3.3: 16 at least; 20 bits. */
uint32_t bnn_uart_baud(uint32_t hz, uint32_t baud)
{
    return bnn_divided(hz, baud, 16u, 0xfffffu);
}

void bnn_uart_start(uint32_t hz, uint32_t baud)
{
    UART_BAUDDIV = bnn_nearest(hz, baud);
    UART_CTRL = CTRL_TX | CTRL_RX | CTRL_RX_INTERRUPT;
}

uint32_t bnn_uart_status(void)
{
    const uint32_t state = UART_STATE;
    return ((state & STATE_RX_FULL) != 0u ? (uint32_t)BNN_UART_BYTE : 0u) |
           ((state & STATE_RX_OVERRUN) != 0u ? (uint32_t)BNN_UART_LOST : 0u);
}

uint32_t bnn_uart_take(void)
{
    /* Before the byte: the next one can only come after it, and asks anew. */
    UART_INTCLEAR = INT_RX;
    UART_STATE = STATE_RX_OVERRUN;
    /* It does not look at the stop bit. */
    return UART_DATA & 0xffu;
}

bool bnn_uart_can_send(void)
{
    return (UART_STATE & STATE_TX_FULL) == 0u;
}

void bnn_uart_send(uint8_t byte)
{
    UART_DATA = byte;
}

bool bnn_uart_sent(void)
{
    if (!bnn_uart_can_send()) {
        return false;
    }
    /* Nothing tells of the byte that is being shifted out: 10 bits, and a read takes a cycle. */
    for (uint32_t left = 10u * UART_BAUDDIV; left > 0u; left--) {
        (void)UART_STATE;
    }
    return true;
}
