/*
 * Counts the instructions of every inference of one model on QEMU's netduinoplus2 under
 * -icount shift=0, where TIM2 advances by one an instruction, and prints the counts.
 *
 * Sources: RM0390 (TIM2, 17.4; RCC, 6.3), ARMv7-M reference manual B1.5 (vectors),
 * "Semihosting for AArch32 and AArch64" (write, exit).
 */
#include "bnn_model.h"
#include "core_count.h"

#define REG(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define RCC_APB1ENR REG(0x40023840u)
#define TIM2_CR1 REG(0x40000000u)
#define TIM2_EGR REG(0x40000014u)
#define TIM2_CNT REG(0x40000024u)
#define TIM2_PSC REG(0x40000028u)
#define TIM2_ARR REG(0x4000002cu)
#define SCB_CPACR REG(0xe000ed88u)
#define SYS_WRITE0 0x04
#define SYS_EXIT_EXTENDED 0x20
#define APPLICATION_EXIT 0x20026u

typedef void (*handler_t)(void);

extern uint32_t bnn_stack_top[], bnn_data_start[], bnn_data_end[], bnn_bss_start[], bnn_bss_end[];
extern const uint32_t bnn_data_load[];

void bnn_reset(void);

static uint32_t arena[BNN_MODEL_ARENA_WORDS];

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

static void print(uint32_t value)
{
    char text[12];
    char *at = text + 11;

    *at = '\0';
    *--at = '\n';
    do {
        *--at = (char)('0' + value % 10u);
        value /= 10u;
    } while (value != 0);
    host(SYS_WRITE0, at);
}

static int count_all(void)
{
    static bnn_ctx_t net;
    int error = bnn_init(&net, &bnn_model, arena, BNN_MODEL_ARENA_WORDS);

    for (unsigned i = 0; i < CORE_IMAGES && error == BNN_OK; i++) {
        const uint32_t before = TIM2_CNT;
        error = bnn_infer(&net, core_images[i], sizeof core_images[i], i);
        print(TIM2_CNT - before);
    }
    return error;
}

void bnn_reset(void)
{
    SCB_CPACR |= 0xfu << 20;
    __asm__ volatile("dsb\n\tisb");
    for (uint32_t *to = bnn_bss_start; to < bnn_bss_end; to++) {
        *to = 0;
    }
    const uint32_t *from = bnn_data_load;
    for (uint32_t *to = bnn_data_start; to < bnn_data_end; to++) {
        *to = *from++;
    }
    RCC_APB1ENR |= 1u;
    TIM2_PSC = 0;
    TIM2_ARR = 0xffffffffu;
    TIM2_EGR = 1u;
    TIM2_CR1 = 1u;
    leave(count_all() == BNN_OK ? 0u : 1u);
}

__attribute__((section(".vectors"), used)) static const handler_t vectors[16] = {
    (handler_t)bnn_stack_top, bnn_reset, fault, fault, fault, fault, fault,
};
