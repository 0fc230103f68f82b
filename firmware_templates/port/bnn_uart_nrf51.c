/* The UART of the nRF51 (and the nRF52's one without EasyDMA): nRF51 RM section 29. */
#include "bnn_board.h"
#include "bnn_reg.h"
#include "bnn_uart.h"

#define UART(offset) BNN_REG(BNN_BOARD_UART_ADDRESS + (offset))
#define TASKS_STARTRX UART(0x000u)
#define TASKS_STARTTX UART(0x008u)
#define EVENTS_RXDRDY UART(0x108u)
#define EVENTS_TXDRDY UART(0x11cu)
#define INTENSET UART(0x304u)
#define ERRORSRC UART(0x480u)
#define ENABLE UART(0x500u)
#define PSELTXD UART(0x50cu)
#define PSELRXD UART(0x514u)
#define RXD UART(0x518u)
#define TXD UART(0x51cu)
#define BAUDRATE UART(0x524u)
#define INT_RXDRDY (1u << 2)
#define ENABLE_ON 4u
#define ERROR_OVERRUN (1u << 0)

/* TXDRDY tells that a byte has gone; before the first one, nothing does. */
static bool sending;

void bnn_uart_start(uint32_t hz)
{
    (void)hz; /* its rate is one of a table for 16 MHz */
    PSELTXD = BNN_BOARD_TX_PIN;
    PSELRXD = BNN_BOARD_RX_PIN;
    BAUDRATE = BNN_BOARD_UART_RATE;
    ENABLE = ENABLE_ON;
    TASKS_STARTTX = 1u;
    TASKS_STARTRX = 1u;
    INTENSET = INT_RXDRDY;
}

uint32_t bnn_uart_status(void)
{
    return (EVENTS_RXDRDY != 0u ? (uint32_t)BNN_UART_BYTE : 0u) |
           ((ERRORSRC & ERROR_OVERRUN) != 0u ? (uint32_t)BNN_UART_LOST : 0u);
}

uint8_t bnn_uart_take(void)
{
    /* The event before the byte, or the next one's event is lost: 29.5. */
    EVENTS_RXDRDY = 0u;
    ERRORSRC = ERROR_OVERRUN;
    return (uint8_t)RXD;
}

bool bnn_uart_can_send(void)
{
    return !sending || EVENTS_TXDRDY != 0u;
}

void bnn_uart_send(uint8_t byte)
{
    EVENTS_TXDRDY = 0u;
    sending = true;
    TXD = byte;
}
