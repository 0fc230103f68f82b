/*
 * The port of all Cortex-M chips: receive ring, sleeping, sending.
 *
 * What depends on the chip is in four small drivers (bnn_clock.h, bnn_pins.h,
 * bnn_uart.h, bnn_counter.h), one file of each; figures of the board come from
 * bnn_board.h.  One ELF serves a chip and its emulators, which may have no
 * interrupt controller.
 *
 * Source: ARMv7-M architecture reference manual (DDI 0403E) B3.4 NVIC; ARMv6-M
 * and ARMv8-M have the same registers.
 */
#include "bnn_small.h" /* before any code */

#include "bnn_port.h"

#include "bnn_board.h"
#include "bnn_clock.h"
#include "bnn_counter.h"
#include "bnn_pins.h"
#include "bnn_reg.h"
#include "bnn_uart.h"
#ifdef BNN_PORT_WATCHDOG
#include "bnn_watchdog.h"
#endif

#define NVIC_ISER BNN_REG(0xe000e100u + 4u * (BNN_BOARD_UART_IRQ / 32u))
#define NVIC_ICER BNN_REG(0xe000e180u + 4u * (BNN_BOARD_UART_IRQ / 32u))
#define NVIC_UART_BIT (1u << (BNN_BOARD_UART_IRQ % 32u))

/* One byte at 115200 baud is 15,600 cycles at 180 MHz. */
#define TX_POLLS 1000000u

#define RX_MASK (BNN_BOARD_RX_BYTES - 1u)
/* C99 has no static assertion; an array of negative size is an error too. */
typedef char bnn_rx_bytes_must_be_a_power_of_two[(BNN_BOARD_RX_BYTES & RX_MASK) == 0u ? 1 : -1];

void bnn_port_uart_isr(void);

const char bnn_port_board[] = BNN_BOARD;

/*
 * The receive ring.  Both counts run freely; the interrupt (or, with interrupts
 * off, receive()) writes the head, the main thread the tail.
 */
static volatile uint8_t rx_ring[BNN_BOARD_RX_BYTES];
static struct {
    volatile uint32_t head;
    volatile uint32_t tail;
    volatile uint32_t garbled;
    volatile bool overrun;
    volatile bool paused;
} rx;

static struct {
    uint32_t hz;
    uint32_t baud;
} uart;

static uint8_t counter_kind = BNN_COUNTER_NONE;

void bnn_port_init(void)
{
    uart.hz = bnn_clock_start();
    uart.baud = BNN_BOARD_UART_BAUD;
    bnn_pins_start();
    bnn_uart_start(uart.hz, uart.baud);
    NVIC_ISER = NVIC_UART_BIT;
    counter_kind = bnn_counter_start();
#ifdef BNN_PORT_WATCHDOG
    bnn_watchdog_start();
#endif
    __asm__ volatile("cpsie i" ::: "memory");
}

/* Move what has come into the ring; runs in the interrupt or with interrupts off. */
static void receive(void)
{
    for (;;) {
        const uint32_t status = bnn_uart_status();
        if (status == 0u) {
            return;
        }
        const uint32_t head = rx.head;
        if (head - rx.tail == BNN_BOARD_RX_BYTES) {
            /*
             * Full: leave the rest to the UART.  A wire overruns, and its status
             * will tell; an emulated line waits.  At the NVIC, since QEMU keeps the
             * request up when the UART's interrupt is switched off.
             */
            NVIC_ICER = NVIC_UART_BIT;
            rx.paused = true;
            return;
        }
        const uint32_t taken = bnn_uart_take();
        if ((status & BNN_UART_LOST) != 0u) {
            rx.overrun = true;
        }
        if ((status & BNN_UART_BYTE) != 0u) {
            rx_ring[head & RX_MASK] = (uint8_t)(taken & 0xffu);
            rx.head = head + 1u;
            if ((taken & BNN_UART_GARBLED) != 0u) {
                rx.garbled++;
            }
        }
    }
}

void bnn_port_uart_isr(void)
{
    receive();
}

int bnn_port_read(void)
{
    const uint32_t tail = rx.tail;
    if (tail == rx.head) {
        return -1;
    }
    const int byte = rx_ring[tail & RX_MASK];
    rx.tail = tail + 1u;
    if (rx.paused) {
        rx.paused = false;
        NVIC_ISER = NVIC_UART_BIT;
    }
    return byte;
}

#ifdef BNN_PORT_WATCHDOG

/* DDI 0403E B3.2.4 and B3.3; every core with a watchdog driver has them. */
#define SCB_ICSR BNN_REG(0xe000ed04u)
#define ICSR_PENDSTCLR (1u << 25)
#define SYST_CSR BNN_REG(0xe000e010u)
#define SYST_RVR BNN_REG(0xe000e014u)
#define SYST_CVR BNN_REG(0xe000e018u)
#define CSR_TICK_OF_CPU_CLOCK 7u /* ENABLE, TICKINT, CLKSOURCE */

void bnn_port_alive(void)
{
    bnn_watchdog_feed();
}

/*
 * The core's own timer ends a sleep in which no byte comes, in time for the next
 * feeding.  It is off and its request withdrawn before interrupts are let in
 * again: so it needs no handler, and none of its ticks falls into an inference.
 */
static void set_alarm(void)
{
    SYST_RVR = BNN_WATCHDOG_SLEEP;
    SYST_CVR = 0u;
    SYST_CSR = CSR_TICK_OF_CPU_CLOCK;
}

static void clear_alarm(void)
{
    SYST_CSR = 0u;
    SCB_ICSR = ICSR_PENDSTCLR;
    /* Done before what follows. */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
}

#else

#ifdef BNN_BOARD_WATCHDOG_MS
#error "this project's watchdog needs -DBNN_PORT_WATCHDOG for every file"
#endif

static inline void set_alarm(void)
{
}

static inline void clear_alarm(void)
{
}

#endif

void bnn_port_wait(void)
{
    bnn_port_alive();
    /*
     * With interrupts masked no byte can slip in between the test and the
     * sleep; a pending interrupt ends WFI all the same (ARMv7-M B1.5.19).
     * Polling here as well serves emulators without an interrupt controller.
     */
    __asm__ volatile("cpsid i" ::: "memory");
    receive();
    if (rx.head == rx.tail) {
        set_alarm();
        __asm__ volatile("dsb\n\twfi" ::: "memory");
        clear_alarm();
        receive();
    }
    __asm__ volatile("cpsie i" ::: "memory");
}

void bnn_port_write(const uint8_t *data, size_t size)
{
    for (size_t at = 0u; at < size; at++) {
        for (uint32_t poll = 0u; poll < TX_POLLS; poll++) {
            if (bnn_uart_can_send()) {
                break;
            }
        }
        bnn_uart_send(data[at]);
    }
}

uint32_t bnn_port_baud(uint32_t baud)
{
    return bnn_uart_baud(uart.hz, baud == 0u ? uart.baud : baud);
}

void bnn_port_set_baud(uint32_t baud)
{
    for (uint32_t poll = 0u; poll < TX_POLLS; poll++) {
        if (bnn_uart_sent()) {
            break;
        }
    }
    uart.baud = baud == 0u ? BNN_BOARD_UART_BAUD : baud;
    bnn_uart_start(uart.hz, uart.baud);
}

uint32_t bnn_port_garbled(void)
{
    return rx.garbled;
}

uint32_t bnn_port_received(void)
{
    return rx.head;
}

uint32_t bnn_port_capacity(void)
{
    return BNN_BOARD_RX_BYTES;
}

bool bnn_port_overrun(void)
{
    /* Cleared before it is told: an overrun in between is told next time. */
    const bool lost = rx.overrun;
    if (lost) {
        rx.overrun = false;
    }
    return lost;
}

uint8_t bnn_port_counter(void)
{
    return counter_kind;
}

uint32_t bnn_port_clock_hz(void)
{
    return bnn_clock_hz();
}
