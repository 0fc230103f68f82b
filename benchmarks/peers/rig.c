/*
 * Runs some digits on an emulated Cortex-M4 and prints, for each: instructions of
 * the inference, bytes of stack it touched, and the logits.
 *
 * Under QEMU's -icount shift=0 an instruction takes one nanosecond. TIM2 of
 * netduinoplus2 counts at 1 GHz there, so one tick is one instruction; TIMER0 of
 * mps2-an386 counts down at 25 MHz, so one tick is forty.
 *
 * Sources: RM0090 (TIM2, RCC), Arm DDI0479 (CMSDK timer), ARMv7-M reference manual
 * B1.5 (vectors) and B3.2.20 (CPACR), "Semihosting for AArch32 and AArch64".
 */
#include "digits.h"
#include "peer.h"

#define REG(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define SCB_CPACR REG(0xe000ed88u)
#define SYS_WRITE0 0x04
#define SYS_EXIT_EXTENDED 0x20
#define APPLICATION_EXIT 0x20026u
#define PAINT 0xc5a3e917u
/* Left alone right below the rig's own frame, which the painting loop may use. */
#define PAINT_GAP 16u

#if defined(RIG_NETDUINOPLUS2)
#define RCC_APB1ENR REG(0x40023840u)
#define TIM2_CR1 REG(0x40000000u)
#define TIM2_EGR REG(0x40000014u)
#define TIM2_CNT REG(0x40000024u)
#define TIM2_PSC REG(0x40000028u)
#define TIM2_ARR REG(0x4000002cu)
#define RIG_TICK 1u

static void timer_start(void)
{
    RCC_APB1ENR |= 1u;
    TIM2_PSC = 0;
    TIM2_ARR = 0xffffffffu;
    TIM2_EGR = 1u;
    TIM2_CR1 = 1u;
}

static uint32_t timer_ticks(void)
{
    return TIM2_CNT;
}
#elif defined(RIG_MPS2_AN386)
#define TIMER0_CTRL REG(0x40000000u)
#define TIMER0_VALUE REG(0x40000004u)
#define TIMER0_RELOAD REG(0x40000008u)
#define RIG_TICK 40u

static void timer_start(void)
{
    TIMER0_RELOAD = 0xffffffffu;
    TIMER0_VALUE = 0xffffffffu;
    TIMER0_CTRL = 1u;
}

static uint32_t timer_ticks(void)
{
    return 0xffffffffu - TIMER0_VALUE;
}
#else
#error "no machine"
#endif

typedef void (*handler_t)(void);

extern uint32_t rig_stack_bottom[], rig_stack_top[], rig_data_start[], rig_data_end[];
extern uint32_t rig_bss_start[], rig_bss_end[];
extern const uint32_t rig_data_load[];

void rig_reset(void);

static void host(uint32_t call, const void *block)
{
    register uint32_t r0 __asm__("r0") = call;
    register const void *r1 __asm__("r1") = block;

    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void leave(uint32_t status)
{
    const uint32_t block[2] = {APPLICATION_EXIT, status};

    for (;;) {
        host(SYS_EXIT_EXTENDED, block);
    }
}

static void fault(void)
{
    leave(99);
}

static void print(uint64_t value, char end)
{
    char text[18];
    char *at = text + 17;

    *at = '\0';
    *--at = end;
    for (unsigned i = 0; i < 16u && (i == 0 || value != 0); i++) {
        *--at = "0123456789abcdef"[value & 15u];
        value >>= 4;
    }
    host(SYS_WRITE0, at);
}

static uint32_t *stack_pointer(void)
{
    uint32_t *sp;

    __asm__ volatile("mov %0, sp" : "=r"(sp));
    return sp;
}

static void run_digit(unsigned index)
{
    peer_prepare(rig_digits[index], index);
    uint32_t *const top = stack_pointer() - PAINT_GAP;
    for (volatile uint32_t *at = rig_stack_bottom; at < top; at++) {
        *at = PAINT;
    }
    const uint32_t before = timer_ticks();
    const int error = peer_run();
    const uint32_t ticks = timer_ticks() - before;
    const volatile uint32_t *touched = rig_stack_bottom;
    while (touched < top && *touched == PAINT) {
        touched++;
    }
    if (error != 0 || touched == rig_stack_bottom) {
        leave(2);
    }
    print((uint64_t)ticks * RIG_TICK, ' ');
    print((uint64_t)(top + PAINT_GAP - touched) * sizeof *touched, ' ');
    for (unsigned i = 0; i < PEER_CLASSES; i++) {
        print(peer_logit(i), i + 1u < PEER_CLASSES ? ' ' : '\n');
    }
}

void rig_reset(void)
{
    SCB_CPACR |= 0xfu << 20;
    __asm__ volatile("dsb\n\tisb");
    for (volatile uint32_t *to = rig_bss_start; to < rig_bss_end; to++) {
        *to = 0;
    }
    const uint32_t *from = rig_data_load;
    for (volatile uint32_t *to = rig_data_start; to < rig_data_end; to++) {
        *to = *from++;
    }
    timer_start();
    for (unsigned i = 0; i < RIG_DIGITS; i++) {
        run_digit(i);
    }
    leave(0);
}

__attribute__((section(".vectors"), used)) static const handler_t vectors[16] = {
    (handler_t)rig_stack_top, rig_reset, fault, fault, fault, fault, fault,
};
