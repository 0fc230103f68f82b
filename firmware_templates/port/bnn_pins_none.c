/* A UART that is always clocked and connected. */
#include "bnn_pins.h"

void bnn_pins_start(void)
{
}
