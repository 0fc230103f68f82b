/* nRF51 and nRF52, GPIO port P0: nRF51 Series Reference Manual section 14. */
#include "bnn_board.h"
#include "bnn_pins.h"
#include "bnn_reg.h"

#define OUTSET BNN_REG(BNN_BOARD_GPIO_ADDRESS + 0x508u)
#define PIN_CNF(pin) BNN_REG(BNN_BOARD_GPIO_ADDRESS + 0x700u + 4u * (pin))
#define CNF_OUTPUT (1u << 0)
#define CNF_INPUT_PULLED_UP (3u << 2)

void bnn_pins_start(void)
{
    /* Idle is high; the UART takes the pins over when it is enabled. */
    OUTSET = 1u << BNN_BOARD_TX_PIN;
    PIN_CNF(BNN_BOARD_TX_PIN) = CNF_OUTPUT;
    PIN_CNF(BNN_BOARD_RX_PIN) = CNF_INPUT_PULLED_UP;
}
