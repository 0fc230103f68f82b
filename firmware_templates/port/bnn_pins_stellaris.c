/* Stellaris LM3S: UART0 on PA0 (RX) and PA1 (TX); data sheet sections 6.4, 9.4. */
#include "bnn_pins.h"
#include "bnn_reg.h"

#define SYSCTL_RCGC1 BNN_REG(0x400fe104u)
#define SYSCTL_RCGC2 BNN_REG(0x400fe108u)
#define GPIOA_AFSEL BNN_REG(0x40004420u)
#define GPIOA_DEN BNN_REG(0x4000451cu)
#define RCGC1_UART0 (1u << 0)
#define RCGC2_GPIOA (1u << 0)
#define PINS ((1u << 0) | (1u << 1))

void bnn_pins_start(void)
{
    SYSCTL_RCGC1 |= RCGC1_UART0;
    SYSCTL_RCGC2 |= RCGC2_GPIOA;
    (void)SYSCTL_RCGC2; /* the clock takes some cycles to arrive */
    GPIOA_AFSEL |= PINS;
    GPIOA_DEN |= PINS;
}
