/*
 * Runs many generated models on an emulated Arm MPS2 or MPS3 board and writes
 * every answer to its UART: bytes of an int32_t error, then of each int64_t logit.
 *
 * Sources: Arm AN385/AN386/AN547 (memory map), Cortex-M System Design Kit TRM (APB UART),
 * ARMv7-M reference manual B1.5 (vectors), "Semihosting for AArch32 and AArch64" (exit).
 */
#include "core_board.h"

#define REG(address) (*(volatile uint32_t *)(uintptr_t)(address))
#ifdef __ARM_FEATURE_MVE
#define UART 0x59303000u
#else
#define UART 0x40004000u
#endif
#define UART_DATA REG(UART)
#define UART_STATE REG(UART + 0x04u)
#define UART_CTRL REG(UART + 0x08u)
#define UART_BAUDDIV REG(UART + 0x10u)
#define UART_TX_FULL 1u
#define UART_TX_ON 1u
#define SCB_CPACR REG(0xe000ed88u)
#define CPACR_FPU (0xfu << 20)
#define SYS_EXIT_EXTENDED 0x20
#define APPLICATION_EXIT 0x20026u

typedef void (*handler_t)(void);

extern uint32_t bnn_stack_top[], bnn_data_start[], bnn_data_end[], bnn_bss_start[], bnn_bss_end[];
extern const uint32_t bnn_data_load[];

void bnn_reset(void);

static uint32_t arena[CORE_ARENA_WORDS];

/* Ends the emulator with this exit status. */
static void leave(uint32_t status)
{
    const uint32_t block[2] = {APPLICATION_EXIT, status};
    register uint32_t r0 __asm__("r0") = SYS_EXIT_EXTENDED;
    register const uint32_t *r1 __asm__("r1") = block;

    for (;;) {
        __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    }
}

static void fault(void)
{
    leave(99);
}

static void put(const void *from, size_t size)
{
    const uint8_t *bytes = from;

    for (size_t i = 0; i < size; i++) {
        while ((UART_STATE & UART_TX_FULL) != 0u) {
        }
        UART_DATA = bytes[i];
    }
}

/* One inference for the first seed of an image, a redraw for each other. */
static void run(const core_case_t *item)
{
    const bnn_model_t *model = item->model;
    const size_t pixels = (size_t)model->height * model->width * model->channels;
    const uint64_t *seed = item->seeds;
    bnn_ctx_t ctx;

    for (uint32_t i = 0; i < CORE_ARENA_WORDS; i++) {
        arena[i] = 0xA5A5A5A5u ^ i;
    }
    int32_t error = bnn_init(&ctx, model, arena, model->arena_words);
    for (uint32_t image = 0; image < CORE_IMAGES; image++) {
        for (uint32_t draw = 0; draw < CORE_DRAWS; draw++, seed++) {
            if (error == BNN_OK) {
                error = draw == 0 ? bnn_infer(&ctx, item->images + image * pixels, pixels, *seed)
                                  : bnn_redraw(&ctx, *seed);
            }
            put(&error, sizeof error);
            for (unsigned c = 0; c < model->classes; c++) {
                const int64_t logit = bnn_logit(&ctx, c);
                put(&logit, sizeof logit);
            }
        }
    }
}

void bnn_reset(void)
{
    const uint32_t *from = bnn_data_load;

#ifdef __ARM_FP
    SCB_CPACR |= CPACR_FPU;
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
    for (uint32_t *to = bnn_data_start; to < bnn_data_end; to++) {
        *to = *from++;
    }
    for (uint32_t *to = bnn_bss_start; to < bnn_bss_end; to++) {
        *to = 0;
    }
    UART_BAUDDIV = 16;
    UART_CTRL = UART_TX_ON;
    for (uint32_t i = 0; i < CORE_CASES; i++) {
        run(&core_cases[i]);
    }
    leave(0);
}

typedef struct vectors {
    uint32_t *stack;
    handler_t handlers[15];
} vectors_t;

extern const vectors_t bnn_vectors;
__attribute__((section(".vectors"), used)) const vectors_t bnn_vectors = {
    bnn_stack_top,
    {bnn_reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault},
};
