/* The UART of the nRF51 (and the nRF52's one without EasyDMA): nRF51 RM section 29. */
#include "bnn_board.h"
#include "bnn_reg.h"
#include "bnn_uart.h"

#define UART(offset) BNN_REG(BNN_BOARD_UART_ADDRESS + (offset))
#define TASKS_STARTRX UART(0x000u)
#define TASKS_STOPRX UART(0x004u)
#define TASKS_STARTTX UART(0x008u)
#define TASKS_STOPTX UART(0x00cu)
#define EVENTS_RXDRDY UART(0x108u)
#define EVENTS_TXDRDY UART(0x11cu)
#define INTENSET UART(0x304u)
#define INTENCLR UART(0x308u)
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
#define ERROR_FRAMING (1u << 2)
#define ERROR_BREAK (1u << 3)

/* TXDRDY tells that a byte has gone; before the first one, nothing does. */
static bool sending;

/*
 * Its rate is one of a table for 16 MHz, 29.10; of the fast ones, those below
 * are less than 2 % off.
 */
static const struct rate {
    uint32_t baud;
    uint32_t made;
    uint32_t code;
} rates[] = {
    {BNN_BOARD_UART_BAUD, BNN_BOARD_UART_BAUD, BNN_BOARD_UART_RATE},
    {230400u, 231884u, 0x03afb000u},
    {1000000u, 1000000u, 0x10000000u},
};

static const struct rate *find(uint32_t baud)
{
    for (uint32_t i = 0u; i < sizeof rates / sizeof rates[0]; i++) {
        if (rates[i].baud == baud) {
            return &rates[i];
        }
    }
    return 0;
}

uint32_t bnn_uart_baud(uint32_t hz, uint32_t baud)
{
    const struct rate *rate = find(baud);

    (void)hz;
    return rate != 0 ? rate->made : 0u;
}

void bnn_uart_start(uint32_t hz, uint32_t baud)
{
    (void)hz;
    /*
     * A byte that is taken between STOPRX and STARTRX has its event cleared but may
     * stay in the FIFO, which then tells of no byte any more: no interrupt meanwhile.
     */
    INTENCLR = INT_RXDRDY;
    /* Pins are taken over while it is off. */
    TASKS_STOPRX = 1u;
    TASKS_STOPTX = 1u;
    ENABLE = 0u;
    PSELTXD = BNN_BOARD_TX_PIN;
    PSELRXD = BNN_BOARD_RX_PIN;
    BAUDRATE = find(baud)->code;
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

uint32_t bnn_uart_take(void)
{
    const uint32_t errors = ERRORSRC;

    /* The event before the byte, or the next one's event is lost: 29.5. */
    EVENTS_RXDRDY = 0u;
    ERRORSRC = errors;
    return (RXD & 0xffu) |
           ((errors & (ERROR_FRAMING | ERROR_BREAK)) != 0u ? BNN_UART_GARBLED : 0u);
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

bool bnn_uart_sent(void)
{
    return bnn_uart_can_send();
}
