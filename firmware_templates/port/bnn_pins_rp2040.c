/* RP2040: the UART and two pins for it; RP2040 Datasheet, chapters GPIO and Subsystem Resets. */
#include "bnn_board.h"
#include "bnn_pins.h"
#include "bnn_reg.h"

#define RESETS_RESET BNN_REG(0x4000c000u)
#define RESETS_DONE BNN_REG(0x4000c008u)
#define RESET_IO_BANK0 (1u << 5)
#define RESET_PADS_BANK0 (1u << 8)
#define USED (RESET_IO_BANK0 | RESET_PADS_BANK0 | (1u << BNN_BOARD_UART_RESET_BIT))

#define GPIO_CTRL(pin) BNN_REG(0x40014004u + 8u * (pin))
#define FUNCTION_UART 2u
#define PAD(pin) BNN_REG(0x4001c004u + 4u * (pin))
#define PAD_SCHMITT (1u << 1)
#define PAD_PULL_UP (1u << 3)
#define PAD_4_MA (1u << 4)
#define PAD_INPUT (1u << 6)

void bnn_pins_start(void)
{
    /* Into reset first: a bootloader may have used them. */
    RESETS_RESET |= USED;
    RESETS_RESET &= ~USED;
    (void)bnn_wait_for(&RESETS_DONE, USED, USED);
    /* Pulled up, an unconnected receiver sees an idle line instead of noise. */
    PAD(BNN_BOARD_RX_PIN) = PAD_INPUT | PAD_4_MA | PAD_PULL_UP | PAD_SCHMITT;
    PAD(BNN_BOARD_TX_PIN) = PAD_INPUT | PAD_4_MA | PAD_PULL_UP | PAD_SCHMITT;
    GPIO_CTRL(BNN_BOARD_TX_PIN) = FUNCTION_UART;
    GPIO_CTRL(BNN_BOARD_RX_PIN) = FUNCTION_UART;
}
