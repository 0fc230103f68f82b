/*
 * Counts the instructions of every step of many generated models on an emulated Arm MPS2 or
 * MPS3 board, and prints for each a line: which model, which step, and ticks of SysTick.
 * QEMU's option -icount makes every instruction last equally long.
 *
 * Sources: ARMv7-M reference manual B1.5 (vectors), B3.3 (SysTick); "Semihosting for AArch32
 * and AArch64" (write, exit).
 */
#include "core_steps.h"

#define REG(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define SYST_CSR REG(0xe000e010u)
#define SYST_RVR REG(0xe000e014u)
#define SYST_CVR REG(0xe000e018u)
#define SYST_MOST 0xffffffu
#define SYST_ON 5u /* counts the core's clock, without an interrupt */
#define SCB_CPACR REG(0xe000ed88u)
#define CPACR_FPU (0xfu << 20)
#define SYS_WRITE0 0x04
#define SYS_EXIT_EXTENDED 0x20
#define APPLICATION_EXIT 0x20026u

typedef void (*handler_t)(void);

extern uint32_t bnn_stack_top[], bnn_data_start[], bnn_data_end[], bnn_bss_start[], bnn_bss_end[];
extern const uint32_t bnn_data_load[];

void bnn_reset(void);

static uint32_t arena[CORE_ARENA_WORDS];
/* No kernel takes another number of instructions for other pixels. */
static uint8_t image[CORE_PIXELS];
static unsigned model_index;
static uint32_t before;

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

static void print(uint32_t value, char after)
{
    char text[12];
    char *at = text + 11;

    *at = '\0';
    *--at = after;
    do {
        *--at = (char)('0' + value % 10u);
        value /= 10u;
    } while (value != 0);
    host(SYS_WRITE0, at);
}

static void step_ran(void *user, unsigned layer)
{
    const uint32_t now = SYST_CVR;

    (void)user;
    print(model_index, ' ');
    print(layer, ' ');
    print((before - now) & SYST_MOST, '\n');
    before = SYST_CVR;
}

/* Not inlined: it may keep values in the FPU, which bnn_reset has to switch on first. */
__attribute__((noinline)) static int count_all(void)
{
    for (model_index = 0; model_index < CORE_MODELS; model_index++) {
        const bnn_model_t *model = core_models[model_index];
        bnn_ctx_t net;
        int error = bnn_init(&net, model, arena, CORE_ARENA_WORDS);
        net.hook = step_ran;
        before = SYST_CVR;
        if (error == BNN_OK) {
            const size_t pixels = (size_t)model->height * model->width * model->channels;
            error = bnn_infer(&net, image, pixels, 1);
        }
        if (error != BNN_OK) {
            return error;
        }
    }
    return BNN_OK;
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
    SYST_RVR = SYST_MOST;
    SYST_CVR = 0;
    SYST_CSR = SYST_ON;
    leave(count_all() == BNN_OK ? 0u : 1u);
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
