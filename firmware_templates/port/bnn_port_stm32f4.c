/*
 * STM32F4: clock, one USART, and a counter; written against the registers.
 *
 * Sources: RM0390 (STM32F446) and RM0090 (STM32F405) reference manuals, PM0214
 * (Cortex-M4 programming manual).  Section numbers below are RM0390's.  Figures
 * of the board come from bnn_board.h.
 *
 * One ELF serves the chip and its emulators, which have no clock tree (RCC_CR
 * reads 0), perhaps no interrupt controller, and other counters; each is found
 * out at run time.
 */
#include "bnn_port.h"

#include "bnn_board.h"

#define REG(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Flash interface, 3.8 */
#define FLASH_ACR REG(0x40023c00u)
#define ACR_PREFETCH (1u << 8)
#define ACR_ICACHE (1u << 9)
#define ACR_DCACHE (1u << 10)

/* Power controller, 5.4 */
#define PWR_CR REG(0x40007000u)
#define PWR_CSR REG(0x40007004u)
#define CR_VOS_SHIFT 14u
#define CR_ODEN (1u << 16)
#define CR_ODSWEN (1u << 17)
#define CSR_VOSRDY (1u << 14)
#define CSR_ODRDY (1u << 16)
#define CSR_ODSWRDY (1u << 17)

/* Reset and clock control, 6.3 */
#define RCC_CR REG(0x40023800u)
#define RCC_PLLCFGR REG(0x40023804u)
#define RCC_CFGR REG(0x40023808u)
#define RCC_AHB1ENR REG(0x40023830u)
#define RCC_APB1ENR REG(0x40023840u)
#define RCC_APB2ENR REG(0x40023844u)
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
#define APB1ENR_TIM2 (1u << 0)
#define APB1ENR_PWR (1u << 28)

/* GPIO, 7.4 */
#define GPIO(port, offset) REG(0x40020000u + 0x400u * (port) + (offset))
#define GPIO_MODER 0x00u
#define GPIO_PUPDR 0x0cu
#define GPIO_AFR(pin) (0x20u + 4u * ((pin) / 8u))
#define MODER_ALTERNATE 2u
#define PUPDR_UP 1u

/* USART, 25.6 */
#define USART_SR REG(BNN_BOARD_UART_ADDRESS + 0x00u)
#define USART_DR REG(BNN_BOARD_UART_ADDRESS + 0x04u)
#define USART_BRR REG(BNN_BOARD_UART_ADDRESS + 0x08u)
#define USART_CR1 REG(BNN_BOARD_UART_ADDRESS + 0x0cu)
#define SR_ORE (1u << 3)
#define SR_RXNE (1u << 5)
#define SR_TXE (1u << 7)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_RXNEIE (1u << 5)
#define CR1_UE (1u << 13)
/* Oversampling by 16: the divisor in sixteenths is simply clock / baud, 25.4.4. */
#define DIVISOR(hz) (((hz) + BNN_BOARD_UART_BAUD / 2u) / BNN_BOARD_UART_BAUD)

/* TIM2, 17.4 */
#define TIM2_CR1 REG(0x40000000u)
#define TIM2_EGR REG(0x40000014u)
#define TIM2_CNT REG(0x40000024u)
#define TIM2_PSC REG(0x40000028u)
#define TIM2_ARR REG(0x4000002cu)
#define TIM_CEN (1u << 0)
#define TIM_UG (1u << 0)

/* Core: DWT and NVIC, ARMv7-M C1.8 and B3.4 */
#define DEMCR REG(0xe000edfcu)
#define DWT_CTRL REG(0xe0001000u)
#define DWT_CYCCNT REG(0xe0001004u)
#define DEMCR_TRCENA (1u << 24)
#define DWT_CYCCNTENA (1u << 0)
#define NVIC_ISER REG(0xe000e100u + 4u * (BNN_BOARD_UART_IRQ / 32u))
#define NVIC_ICER REG(0xe000e180u + 4u * (BNN_BOARD_UART_IRQ / 32u))
#define NVIC_UART_BIT (1u << (BNN_BOARD_UART_IRQ % 32u))

/* The divider field of a bus: 6.3.3, PPRE1 and PPRE2. */
#define PPRE(divider) \
    ((divider) == 16u ? 7u : (divider) == 8u ? 6u : (divider) == 4u ? 5u : (divider) == 2u ? 4u : 0u)

/* Turns of a polling loop.  The PLL locks within 300 us (DS10693, PLL characteristics). */
#define CLOCK_POLLS 200000u
/* One byte at 115200 baud is 15,600 cycles at 180 MHz. */
#define TX_POLLS 1000000u
#define COUNTER_POLLS 64u

#define RX_MASK (BNN_BOARD_RX_BYTES - 1u)
/* C99 has no static assertion; an array of negative size is an error too. */
typedef char bnn_rx_bytes_must_be_a_power_of_two[(BNN_BOARD_RX_BYTES & RX_MASK) == 0u ? 1 : -1];

void bnn_port_uart_isr(void);

const char bnn_port_board[] = BNN_BOARD;

/*
 * The receive ring.  Both counts run freely; the interrupt (or, with interrupts
 * off, receive()) writes rx_head, the main thread rx_tail.
 */
static volatile uint8_t rx_ring[BNN_BOARD_RX_BYTES];
static volatile uint32_t rx_head;
static volatile uint32_t rx_tail;
static volatile bool rx_overrun;
static volatile bool rx_paused;

static const volatile uint32_t no_count = 0u;
static const volatile uint32_t *counter = &no_count;
static uint8_t counter_kind = BNN_COUNTER_NONE;
static uint32_t clock_hz;

static bool wait_for(const volatile uint32_t *reg, uint32_t mask, uint32_t value)
{
    for (uint32_t poll = 0u; poll < CLOCK_POLLS; poll++) {
        if ((*reg & mask) == value) {
            return true;
        }
    }
    return false;
}

/* Over-drive lets the regulator feed more than 168 MHz: 5.1.3. */
static bool enter_overdrive(void)
{
    if (!BNN_BOARD_OVERDRIVE) {
        return true;
    }
    PWR_CR |= CR_ODEN;
    if (!wait_for(&PWR_CSR, CSR_ODRDY, CSR_ODRDY)) {
        return false;
    }
    PWR_CR |= CR_ODSWEN;
    return wait_for(&PWR_CSR, CSR_ODSWRDY, CSR_ODSWRDY);
}

/* Only with the system clock on the HSI, and in the opposite order: 5.1.3. */
static bool leave_overdrive(void)
{
    if ((PWR_CR & (CR_ODEN | CR_ODSWEN)) == 0u) {
        return true; /* off, or a chip that has none */
    }
    PWR_CR &= ~CR_ODSWEN;
    if (!wait_for(&PWR_CSR, CSR_ODSWRDY, 0u)) {
        return false;
    }
    PWR_CR &= ~CR_ODEN;
    return wait_for(&PWR_CSR, CSR_ODRDY, 0u);
}

/*
 * What reset leaves: HSI, no dividers, PLL and over-drive off.  A bootloader may
 * leave the system clock on the PLL, which then cannot be switched off: 6.3.1.
 * The wait states stay, since too many do no harm.
 */
static bool select_hsi(void)
{
    RCC_CR |= CR_HSION;
    if (!wait_for(&RCC_CR, CR_HSIRDY, CR_HSIRDY)) {
        return false;
    }
    RCC_CFGR &= ~CFGR_SW;
    if (!wait_for(&RCC_CFGR, CFGR_SWS, 0u)) {
        return false;
    }
    /* Not before: undivided, the PLL's clock is too fast for the buses. */
    RCC_CFGR &= ~CFGR_PRESCALERS;
    const bool left = leave_overdrive();
    RCC_CR &= ~CR_PLLON;
    return wait_for(&RCC_CR, CR_PLLRDY, 0u) && left;
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
    return wait_for(&RCC_CR, CR_PLLRDY, CR_PLLRDY) && wait_for(&PWR_CSR, CSR_VOSRDY, CSR_VOSRDY) &&
           enter_overdrive();
}

static bool select_pll(void)
{
    /* Wait states before the faster clock, never after: 3.4.1. */
    const uint32_t acr = BNN_BOARD_WAIT_STATES | ACR_PREFETCH | ACR_ICACHE | ACR_DCACHE;
    FLASH_ACR = acr;
    if (!wait_for(&FLASH_ACR, acr, acr)) {
        return false;
    }
    RCC_CFGR = (PPRE(BNN_BOARD_APB1_DIV) << CFGR_PPRE1_SHIFT) |
               (PPRE(BNN_BOARD_APB2_DIV) << CFGR_PPRE2_SHIFT);
    RCC_CFGR |= CFGR_SW_PLL;
    return wait_for(&RCC_CFGR, CFGR_SWS, CFGR_SWS_PLL);
}

/* The divisor of the USART for the clock that is reached. */
static uint32_t start_clock(void)
{
    if (RCC_CR == 0u) {
        /* A chip that runs has an oscillator on; where none is, there is no clock tree. */
        clock_hz = 0u;
        return DIVISOR(BNN_BOARD_RESET_HZ);
    }
    RCC_APB1ENR |= APB1ENR_PWR;
    (void)RCC_APB1ENR; /* the clock takes two cycles to arrive: errata sheet ES0298 */
    if (select_hsi() && start_pll() && select_pll()) {
        clock_hz = BNN_BOARD_CLOCK_HZ;
        return DIVISOR(BNN_BOARD_UART_HZ);
    }
    (void)select_hsi();
    clock_hz = BNN_BOARD_RESET_HZ;
    return DIVISOR(BNN_BOARD_RESET_HZ);
}

static void set_field(volatile uint32_t *reg, uint32_t index, uint32_t bits, uint32_t value)
{
    const uint32_t shift = index * bits;
    *reg = (*reg & ~(((1u << bits) - 1u) << shift)) | (value << shift);
}

static void start_pin(uint32_t port, uint32_t pin)
{
    RCC_AHB1ENR |= 1u << port;
    (void)RCC_AHB1ENR;
    set_field(&GPIO(port, GPIO_AFR(pin)), pin % 8u, 4u, BNN_BOARD_UART_ALTERNATE);
    /* Pulled up, an unconnected receiver sees an idle line instead of noise. */
    set_field(&GPIO(port, GPIO_PUPDR), pin, 2u, PUPDR_UP);
    set_field(&GPIO(port, GPIO_MODER), pin, 2u, MODER_ALTERNATE);
}

static void start_uart(uint32_t divisor)
{
    start_pin(BNN_BOARD_TX_PORT, BNN_BOARD_TX_PIN);
    start_pin(BNN_BOARD_RX_PORT, BNN_BOARD_RX_PIN);
#if BNN_BOARD_UART_ON_APB2
    RCC_APB2ENR |= 1u << BNN_BOARD_UART_ENABLE_BIT;
    (void)RCC_APB2ENR;
#else
    RCC_APB1ENR |= 1u << BNN_BOARD_UART_ENABLE_BIT;
    (void)RCC_APB1ENR;
#endif
    USART_BRR = divisor;
    USART_CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
    NVIC_ISER = NVIC_UART_BIT;
}

static bool advances(const volatile uint32_t *reg)
{
    const uint32_t first = *reg;
    for (uint32_t poll = 0u; poll < COUNTER_POLLS; poll++) {
        if (*reg != first) {
            return true;
        }
    }
    return false;
}

static void start_counter(void)
{
    DEMCR |= DEMCR_TRCENA;
    DWT_CYCCNT = 0u;
    DWT_CTRL |= DWT_CYCCNTENA;
    if (advances(&DWT_CYCCNT)) {
        counter = &DWT_CYCCNT;
        counter_kind = BNN_COUNTER_DWT;
        return;
    }
    RCC_APB1ENR |= APB1ENR_TIM2;
    (void)RCC_APB1ENR;
    TIM2_PSC = 0u;
    TIM2_ARR = 0xffffffffu;
    TIM2_EGR = TIM_UG; /* loads the prescaler now: 17.4.6 */
    TIM2_CR1 = TIM_CEN;
    if (advances(&TIM2_CNT)) {
        counter = &TIM2_CNT;
        counter_kind = BNN_COUNTER_TIMER;
    }
}

void bnn_port_init(void)
{
    start_uart(start_clock());
    start_counter();
    __asm__ volatile("cpsie i" ::: "memory");
}

/* Move what has come into the ring; runs in the interrupt or with interrupts off. */
static void receive(void)
{
    for (;;) {
        const uint32_t status = USART_SR;
        if ((status & (SR_RXNE | SR_ORE)) == 0u) {
            return;
        }
        const uint32_t head = rx_head;
        if (head - rx_tail == BNN_BOARD_RX_BYTES) {
            /*
             * Full: leave the rest to the UART.  A wire overruns, and ORE will
             * tell; an emulated line waits.  At the NVIC, since QEMU keeps the
             * request up when RXNEIE is cleared.
             */
            NVIC_ICER = NVIC_UART_BIT;
            rx_paused = true;
            return;
        }
        /* Reading SR, then DR clears ORE: 25.6.1. */
        const uint8_t byte = (uint8_t)USART_DR;
        if ((status & SR_ORE) != 0u) {
            rx_overrun = true;
        }
        if ((status & SR_RXNE) != 0u) {
            rx_ring[head & RX_MASK] = byte;
            rx_head = head + 1u;
        }
    }
}

void bnn_port_uart_isr(void)
{
    receive();
}

int bnn_port_read(void)
{
    const uint32_t tail = rx_tail;
    if (tail == rx_head) {
        return -1;
    }
    const int byte = rx_ring[tail & RX_MASK];
    rx_tail = tail + 1u;
    if (rx_paused) {
        rx_paused = false;
        NVIC_ISER = NVIC_UART_BIT;
    }
    return byte;
}

void bnn_port_wait(void)
{
    /*
     * With interrupts masked no byte can slip in between the test and the
     * sleep; a pending interrupt ends WFI all the same (ARMv7-M B1.5.19).
     * Polling here as well serves emulators without an interrupt controller.
     */
    __asm__ volatile("cpsid i" ::: "memory");
    receive();
    if (rx_head == rx_tail) {
        __asm__ volatile("dsb\n\twfi" ::: "memory");
        receive();
    }
    __asm__ volatile("cpsie i" ::: "memory");
}

void bnn_port_write(const uint8_t *data, size_t size)
{
    for (size_t at = 0u; at < size; at++) {
        for (uint32_t poll = 0u; poll < TX_POLLS; poll++) {
            if ((USART_SR & SR_TXE) != 0u) {
                break;
            }
        }
        USART_DR = data[at];
    }
}

uint32_t bnn_port_received(void)
{
    return rx_head;
}

uint32_t bnn_port_capacity(void)
{
    return BNN_BOARD_RX_BYTES;
}

bool bnn_port_overrun(void)
{
    /* Cleared before it is told: an overrun in between is told next time. */
    const bool lost = rx_overrun;
    if (lost) {
        rx_overrun = false;
    }
    return lost;
}

uint32_t bnn_port_ticks(void)
{
    return *counter;
}

uint8_t bnn_port_counter(void)
{
    return counter_kind;
}

uint32_t bnn_port_clock_hz(void)
{
    return clock_hz;
}
