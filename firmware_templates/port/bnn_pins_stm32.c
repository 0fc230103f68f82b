/*
 * STM32 with GPIO ports that have MODER and AFR, that is all but the F1: RM0390
 * section 7.4; the registers are the same in all those families.
 */
#include "bnn_board.h"
#include "bnn_pins.h"
#include "bnn_reg.h"

#define GPIO(port, offset) BNN_REG(BNN_BOARD_GPIO_ADDRESS + 0x400u * (port) + (offset))
#define GPIO_ENABLE BNN_REG(BNN_BOARD_GPIO_ENABLE_ADDRESS)
#define UART_ENABLE BNN_REG(BNN_BOARD_UART_ENABLE_ADDRESS)
#define GPIO_MODER 0x00u
#define GPIO_PUPDR 0x0cu
#define GPIO_AFR(pin) (0x20u + 4u * ((pin) / 8u))
#define MODER_ALTERNATE 2u
#define PUPDR_UP 1u

static void start_pin(uint32_t port, uint32_t pin)
{
    GPIO_ENABLE |= 1u << (BNN_BOARD_GPIO_ENABLE_SHIFT + port);
    (void)GPIO_ENABLE; /* the clock takes two cycles to arrive: errata sheet ES0298 */
    bnn_set_field(&GPIO(port, GPIO_AFR(pin)), pin % 8u, 4u, BNN_BOARD_UART_ALTERNATE);
    /* Pulled up, an unconnected receiver sees an idle line instead of noise. */
    bnn_set_field(&GPIO(port, GPIO_PUPDR), pin, 2u, PUPDR_UP);
    bnn_set_field(&GPIO(port, GPIO_MODER), pin, 2u, MODER_ALTERNATE);
}

void bnn_pins_start(void)
{
    start_pin(BNN_BOARD_TX_PORT, BNN_BOARD_TX_PIN);
    start_pin(BNN_BOARD_RX_PORT, BNN_BOARD_RX_PIN);
    UART_ENABLE |= 1u << BNN_BOARD_UART_ENABLE_BIT;
    (void)UART_ENABLE;
}
