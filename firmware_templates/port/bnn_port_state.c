/*
 * What outlasts a reset, and whether the flash is still what was built.
 *
 * The symbols come from linker.ld, the registers from the chip's family
 * (bnn_board.h): RCC_CSR of an STM32, RESETREAS of an nRF.
 */
#include "bnn_small.h" /* before any code */

#include "bnn_board.h"
#include "bnn_port.h"

#define NO_CHECKSUM 0xffffffffu

extern const uint8_t bnn_image_start[], bnn_image_end[];

/*
 * Written into the ELF after linking, when all other bytes are known.  volatile:
 * the compiler must not take the value that it sees here for the one in flash.
 */
__attribute__((section(".checksum"), used)) const volatile uint32_t bnn_image_crc = NO_CHECKSUM;

bool bnn_port_image(const uint8_t **bytes, size_t *size, uint32_t *crc)
{
    *bytes = bnn_image_start;
    *size = (size_t)((uintptr_t)bnn_image_end - (uintptr_t)bnn_image_start);
    *crc = bnn_image_crc;
    return *crc != NO_CHECKSUM;
}

uint8_t bnn_port_reset_cause(void)
{
#ifdef BNN_BOARD_RESET_ADDRESS
    /* Read once: the flags add up until they are cleared, and are wanted for this reset alone. */
    static uint8_t cause;
    static bool known;

    if (!known) {
        volatile uint32_t *flags = (volatile uint32_t *)(uintptr_t)BNN_BOARD_RESET_ADDRESS;
        const uint32_t set = *flags;

        known = true;
#ifdef BNN_BOARD_RESET_NONE_IS_POWER
        /* Power clears all flags and has none; other flags may be set falsely beside the pin's. */
        if ((set & BNN_BOARD_RESET_CLEAR_MASK) == 0u) {
            cause = BNN_RESET_POWER;
        } else if ((set & BNN_BOARD_RESET_PIN_MASK) != 0u) {
            cause = BNN_RESET_PIN;
        } else
#else
        /* Every cause also pulls the reset pin, so the pin is asked last. */
        if ((set & BNN_BOARD_RESET_POWER_MASK) != 0u) {
            cause = BNN_RESET_POWER;
        } else
#endif
        if ((set & BNN_BOARD_RESET_WATCHDOG_MASK) != 0u) {
            cause = BNN_RESET_WATCHDOG;
        } else if ((set & BNN_BOARD_RESET_SOFTWARE_MASK) != 0u) {
            cause = BNN_RESET_SOFTWARE;
        } else if ((set & BNN_BOARD_RESET_PIN_MASK) != 0u) {
            cause = BNN_RESET_PIN;
        }
        *flags = BNN_BOARD_RESET_CLEAR_MASK;
    }
    return cause;
#else
    return BNN_RESET_UNKNOWN;
#endif
}
