/* STM32F1, whose GPIO ports have CRL and CRH: RM0008 and RM0041 section 9.2 and 7.2. */
#include "bnn_board.h"
#include "bnn_pins.h"
#include "bnn_reg.h"

#define GPIO(port, offset) BNN_REG(BNN_BOARD_GPIO_ADDRESS + 0x400u * (port) + (offset))
#define GPIO_ENABLE BNN_REG(BNN_BOARD_GPIO_ENABLE_ADDRESS)
#define UART_ENABLE BNN_REG(BNN_BOARD_UART_ENABLE_ADDRESS)
#define GPIO_CR(pin) (4u * ((pin) / 8u))
#define GPIO_BSRR 0x10u
#define CR_ALTERNATE_2MHZ 0xau
#define CR_INPUT_PULLED 0x8u

static void start_pin(uint32_t port, uint32_t pin, uint32_t mode)
{
    GPIO_ENABLE |= 1u << (BNN_BOARD_GPIO_ENABLE_SHIFT + port);
    (void)GPIO_ENABLE; /* the clock takes some cycles to arrive */
    /* An input's output bit chooses between pull-up and pull-down. */
    GPIO(port, GPIO_BSRR) = 1u << pin;
    bnn_set_field(&GPIO(port, GPIO_CR(pin)), pin % 8u, 4u, mode);
}

void bnn_pins_start(void)
{
    start_pin(BNN_BOARD_TX_PORT, BNN_BOARD_TX_PIN, CR_ALTERNATE_2MHZ);
    start_pin(BNN_BOARD_RX_PORT, BNN_BOARD_RX_PIN, CR_INPUT_PULLED);
    UART_ENABLE |= 1u << BNN_BOARD_UART_ENABLE_BIT;
    (void)UART_ENABLE;
}
