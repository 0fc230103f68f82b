/*
 * Start-up and faults of ARMv6-M (Cortex-M0, M0+), ARMv7-M (M3, M4, M7) and
 * ARMv8-M mainline (M33, M55) cores; the last start in their secure state and
 * stay there.
 *
 * Sources: ARMv7-M architecture reference manual (DDI 0403E): B1.5 exceptions,
 * B3.2 system control block; ARMv6-M (DDI 0419), which has no fault registers
 * and whose table cannot be moved everywhere; ARMv8-M (DDI 0553).  The symbols
 * come from linker.ld.
 */
#include <stdbool.h>
#include <stdint.h>

#include "bnn_board.h"
#include "bnn_port.h"
#include "bnn_reg.h"

/* ARMv6-M has the small Thumb instruction set alone. */
#if defined(__ARM_ARCH_ISA_THUMB) && __ARM_ARCH_ISA_THUMB >= 2
#define MAINLINE 1
#else
#define MAINLINE 0
#endif

#define SCB_VTOR BNN_REG(0xe000ed08u)
#define SCB_CFSR BNN_REG(0xe000ed28u)
#define SCB_HFSR BNN_REG(0xe000ed2cu)
#define SCB_MMFAR BNN_REG(0xe000ed34u)
#define SCB_BFAR BNN_REG(0xe000ed38u)
#define SCB_CPACR BNN_REG(0xe000ed88u)

#define CPACR_FPU (0xfu << 20) /* CP10 and CP11: the vector extension too */

#define PAINT 0x5afe57acu
/* Left unpainted below the stack pointer while painting: our own registers. */
#define PAINT_MARGIN 64u

typedef void (*handler_t)(void);

extern uint32_t bnn_stack_bottom[], bnn_stack_top[];
extern uint32_t bnn_data_start[], bnn_data_end[], bnn_bss_start[], bnn_bss_end[];
extern const uint32_t bnn_data_load[];

int main(void);
void bnn_reset(void);
void bnn_fault_entry(void);
void bnn_fault_report(void);
void bnn_port_uart_isr(void);

/* r0, r1, r2, r3, r12, lr, pc, xpsr as the core stacked them. */
uint32_t bnn_fault_frame[8];

/* The first word is the stack pointer, which C cannot put in a handler table. */
typedef struct vectors {
    uint32_t *stack;
    handler_t handlers[];
} vectors_t;

extern const vectors_t bnn_vectors;
__attribute__((section(".vectors"), used)) const vectors_t bnn_vectors = {
    bnn_stack_top,
    {
        bnn_reset,
        bnn_fault_entry, /* NMI */
        bnn_fault_entry, /* HardFault */
        bnn_fault_entry, /* MemManage */
        bnn_fault_entry, /* BusFault */
        bnn_fault_entry, /* UsageFault */
        0,
        0,
        0,
        0,
        bnn_fault_entry, /* SVCall */
        bnn_fault_entry, /* DebugMonitor */
        0,
        bnn_fault_entry, /* PendSV */
        bnn_fault_entry, /* SysTick */
        BNN_BOARD_VECTORS,
    },
};

static void park(void)
{
    __asm__ volatile("cpsid i");
    for (;;) {
        __asm__ volatile("wfi");
    }
}

static void paint_stack(void)
{
    uintptr_t pointer;
    __asm__ volatile("mov %0, sp" : "=r"(pointer));
    const uintptr_t end = pointer - PAINT_MARGIN;
    for (uintptr_t at = (uintptr_t)bnn_stack_bottom; at < end; at += sizeof(uint32_t)) {
        /* volatile: no call to memset, whose frame would be painted over. */
        *(volatile uint32_t *)at = PAINT;
    }
}

uint32_t bnn_port_stack_free(void)
{
    const volatile uint32_t *at = bnn_stack_bottom;
    while ((uintptr_t)at < (uintptr_t)bnn_stack_top && *at == PAINT) {
        at++;
    }
    return (uint32_t)((uintptr_t)at - (uintptr_t)bnn_stack_bottom);
}

void bnn_reset(void)
{
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    /* The FPU first: any function below may be compiled to use it. */
    SCB_CPACR |= CPACR_FPU;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
#if MAINLINE
    /* A bootloader may have left its own table behind. */
    SCB_VTOR = (uint32_t)(uintptr_t)&bnn_vectors;
#endif
    paint_stack();

    const uint32_t *from = bnn_data_load;
    for (volatile uint32_t *to = bnn_data_start; (uintptr_t)to < (uintptr_t)bnn_data_end; to++) {
        *to = *from++;
    }
    for (volatile uint32_t *to = bnn_bss_start; (uintptr_t)to < (uintptr_t)bnn_bss_end; to++) {
        *to = 0u;
    }
    (void)main();
    park();
}

/*
 * Faults arrive here with a stack that may have overflowed, so nothing is
 * pushed: the stacked frame is copied if the stack pointer lies where a frame
 * can, and the report runs on the stack from its top, since nothing returns.
 *
 * All faults escalate to HardFault, as their own handlers are left disabled.
 */
__attribute__((naked)) void bnn_fault_entry(void)
{
#if MAINLINE
    __asm__ volatile(
        "cpsid i\n\t"
        "mrs r0, msp\n\t"
        "movw r1, #:lower16:bnn_stack_bottom\n\t"
        "movt r1, #:upper16:bnn_stack_bottom\n\t"
        "movw r2, #:lower16:bnn_stack_top\n\t"
        "movt r2, #:upper16:bnn_stack_top\n\t"
        "cmp r0, r1\n\t"
        "blo 1f\n\t"
        "sub r3, r2, #32\n\t"
        "cmp r0, r3\n\t"
        "bhi 1f\n\t"
        "movw r3, #:lower16:bnn_fault_frame\n\t"
        "movt r3, #:upper16:bnn_fault_frame\n\t"
        "ldmia r0, {r4-r11}\n\t"
        "stmia r3, {r4-r11}\n"
        "1:\n\t"
        "msr msp, r2\n\t"
        "b bnn_fault_report\n");
#else
    __asm__ volatile(
        ".syntax unified\n\t"
        "cpsid i\n\t"
        "mrs r0, msp\n\t"
        "ldr r1, =bnn_stack_bottom\n\t"
        "ldr r2, =bnn_stack_top\n\t"
        "cmp r0, r1\n\t"
        "blo 1f\n\t"
        "mov r3, r2\n\t"
        "subs r3, #32\n\t"
        "cmp r0, r3\n\t"
        "bhi 1f\n\t"
        "ldr r3, =bnn_fault_frame\n\t"
        "ldmia r0!, {r4-r7}\n\t"
        "stmia r3!, {r4-r7}\n\t"
        "ldmia r0!, {r4-r7}\n\t"
        "stmia r3!, {r4-r7}\n"
        "1:\n\t"
        "msr msp, r2\n\t"
        "ldr r0, =bnn_fault_report\n\t"
        "bx r0\n\t"
        ".align 2\n\t"
        ".ltorg\n");
#endif
}

__attribute__((used)) void bnn_fault_report(void)
{
#ifdef BNN_PORT_WATCHDOG
    /* A watchdog may interrupt the parked core before it resets it: the first fault counts. */
    static bool reported;

    if (reported) {
        park();
    }
    reported = true;
#endif
#if MAINLINE
    bnn_app_fault(bnn_fault_frame, SCB_CFSR, SCB_HFSR, SCB_MMFAR, SCB_BFAR);
#else
    bnn_app_fault(bnn_fault_frame, 0u, 0u, 0u, 0u);
#endif
    park();
}
