/*
 * STM32F4: from the internal oscillator through the PLL, with over-drive where
 * the board asks for it.
 *
 * Sources: RM0390 (STM32F446) and RM0090 (STM32F405) reference manuals; section
 * numbers below are RM0390's.
 *
 * One ELF serves the chip and its emulators, which have no clock tree: there,
 * RCC_CR reads 0.
 */
#include "bnn_small.h" /* before any code */

#include "bnn_board.h"
#include "bnn_clock.h"
#include "bnn_reg.h"

/* Flash interface, 3.8 */
#define FLASH_ACR BNN_REG(0x40023c00u)
#define ACR_PREFETCH (1u << 8)
#define ACR_ICACHE (1u << 9)
#define ACR_DCACHE (1u << 10)

/* Power controller, 5.4 */
#define PWR_CR BNN_REG(0x40007000u)
#define PWR_CSR BNN_REG(0x40007004u)
#define CR_VOS_SHIFT 14u
#define CR_ODEN (1u << 16)
#define CR_ODSWEN (1u << 17)
#define CSR_VOSRDY (1u << 14)
#define CSR_ODRDY (1u << 16)
#define CSR_ODSWRDY (1u << 17)

/* Reset and clock control, 6.3 */
#define RCC_CR BNN_REG(0x40023800u)
#define RCC_PLLCFGR BNN_REG(0x40023804u)
#define RCC_CFGR BNN_REG(0x40023808u)
#define RCC_APB1ENR BNN_REG(0x40023840u)
#define CR_HSION (1u << 0)
#define CR_HSIRDY (1u << 1)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define PLLCFGR_PLLR (7u << 28) /* reserved on the STM32F405, where it reads 2 */
#define CFGR_SW_PLL 2u
#define CFGR_SW (3u << 0)
#define CFGR_SWS (3u << 2)
#define CFGR_SWS_PLL (2u << 2)
#define CFGR_PRESCALERS ((15u << 4) | (7u << CFGR_PPRE1_SHIFT) | (7u << CFGR_PPRE2_SHIFT))
#define CFGR_PPRE1_SHIFT 10u
#define CFGR_PPRE2_SHIFT 13u
#define APB1ENR_PWR (1u << 28)

/* The divider field of a bus: 6.3.3, PPRE1 and PPRE2. */
#define PPRE(divider) \
    ((divider) == 16u ? 7u : (divider) == 8u ? 6u : (divider) == 4u ? 5u : (divider) == 2u ? 4u : 0u)

static uint32_t clock_hz;

/* Over-drive lets the regulator feed more than 168 MHz: 5.1.3. */
static bool enter_overdrive(void)
{
    if (!BNN_BOARD_OVERDRIVE) {
        return true;
    }
    PWR_CR |= CR_ODEN;
    if (!bnn_wait_for(&PWR_CSR, CSR_ODRDY, CSR_ODRDY)) {
        return false;
    }
    PWR_CR |= CR_ODSWEN;
    return bnn_wait_for(&PWR_CSR, CSR_ODSWRDY, CSR_ODSWRDY);
}

/* Only with the system clock on the HSI, and in the opposite order: 5.1.3. */
static bool leave_overdrive(void)
{
    if ((PWR_CR & (CR_ODEN | CR_ODSWEN)) == 0u) {
        return true; /* off, or a chip that has none */
    }
    PWR_CR &= ~CR_ODSWEN;
    if (!bnn_wait_for(&PWR_CSR, CSR_ODSWRDY, 0u)) {
        return false;
    }
    PWR_CR &= ~CR_ODEN;
    return bnn_wait_for(&PWR_CSR, CSR_ODRDY, 0u);
}

/*
 * What reset leaves: HSI, no dividers, PLL and over-drive off.  A bootloader may
 * leave the system clock on the PLL, which then cannot be switched off: 6.3.1.
 * The wait states stay, since too many do no harm.
 */
static bool select_hsi(void)
{
    RCC_CR |= CR_HSION;
    if (!bnn_wait_for(&RCC_CR, CR_HSIRDY, CR_HSIRDY)) {
        return false;
    }
    RCC_CFGR &= ~CFGR_SW;
    if (!bnn_wait_for(&RCC_CFGR, CFGR_SWS, 0u)) {
        return false;
    }
    /* Not before: undivided, the PLL's clock is too fast for the buses. */
    RCC_CFGR &= ~CFGR_PRESCALERS;
    const bool left = leave_overdrive();
    RCC_CR &= ~CR_PLLON;
    return bnn_wait_for(&RCC_CR, CR_PLLRDY, 0u) && left;
}

static bool start_pll(void)
{
    /* The voltage scale only changes while the PLL is off: 5.1.3. */
    const uint32_t vos = ((1u << BNN_BOARD_VOLTAGE_SCALE_BITS) - 1u) << CR_VOS_SHIFT;
    PWR_CR = (PWR_CR & ~vos) | (BNN_BOARD_VOLTAGE_SCALE << CR_VOS_SHIFT);
    /* Source HSI: bit 22 stays 0. */
    RCC_PLLCFGR = (RCC_PLLCFGR & PLLCFGR_PLLR) | BNN_BOARD_PLL_M | (BNN_BOARD_PLL_N << 6) |
                  ((BNN_BOARD_PLL_P / 2u - 1u) << 16) | (BNN_BOARD_PLL_Q << 24);
    RCC_CR |= CR_PLLON;
    /* It takes effect with the PLL, so it is not ready before: 5.4.2. */
    return bnn_wait_for(&RCC_CR, CR_PLLRDY, CR_PLLRDY) && bnn_wait_for(&PWR_CSR, CSR_VOSRDY, CSR_VOSRDY) &&
           enter_overdrive();
}

static bool select_pll(void)
{
    /* Wait states before the faster clock, never after: 3.4.1. */
    const uint32_t acr = BNN_BOARD_WAIT_STATES | ACR_PREFETCH | ACR_ICACHE | ACR_DCACHE;
    FLASH_ACR = acr;
    if (!bnn_wait_for(&FLASH_ACR, acr, acr)) {
        return false;
    }
    RCC_CFGR = (PPRE(BNN_BOARD_APB1_DIV) << CFGR_PPRE1_SHIFT) |
               (PPRE(BNN_BOARD_APB2_DIV) << CFGR_PPRE2_SHIFT);
    RCC_CFGR |= CFGR_SW_PLL;
    return bnn_wait_for(&RCC_CFGR, CFGR_SWS, CFGR_SWS_PLL);
}

uint32_t bnn_clock_start(void)
{
    if (RCC_CR == 0u) {
        /* A chip that runs has an oscillator on; where none is, there is no clock tree. */
        clock_hz = 0u;
        return BNN_BOARD_UART_RESET_HZ;
    }
    RCC_APB1ENR |= APB1ENR_PWR;
    (void)RCC_APB1ENR; /* the clock takes two cycles to arrive: errata sheet ES0298 */
    /* The PLL locks within 300 us (DS10693), long before the polls run out. */
    if (select_hsi() && start_pll() && select_pll()) {
        clock_hz = BNN_BOARD_CLOCK_HZ;
        return BNN_BOARD_UART_HZ;
    }
    (void)select_hsi();
    clock_hz = BNN_BOARD_RESET_HZ;
    return BNN_BOARD_UART_RESET_HZ;
}

uint32_t bnn_clock_hz(void)
{
    return clock_hz;
}
