/*
 * Runs many generated models on many images on an emulated Arm MPS2 board, with marks around
 * every inference for tests/c/trace_plugin.c.
 *
 * The images are made here: black, white, stripes, then noise of growing brightness, so that
 * from none to all of any layer's inputs are active.  Seeds change too.
 *
 * Sources: Arm AN385/AN386 (memory map), ARMv7-M reference manual B1.5 (vectors) and A5.2.5
 * (hints: unallocated ones do nothing), "Semihosting for AArch32 and AArch64" (exit).
 */
#include "core_trace.h"

#include "bnn.h"

#define SCB_CPACR (*(volatile uint32_t *)(uintptr_t)0xe000ed88u)
#define CPACR_FPU (0xfu << 20)
#define SYS_EXIT_EXTENDED 0x20
#define APPLICATION_EXIT 0x20026u
#define MARK_BEGIN __asm__ volatile(".short 0xbf50" ::: "memory")
#define MARK_END __asm__ volatile(".short 0xbf60" ::: "memory")
#define MARK_NETWORK __asm__ volatile(".short 0xbf70" ::: "memory")

typedef void (*handler_t)(void);

extern const bnn_model_t *const core_models[CORE_MODELS];
extern uint32_t bnn_stack_top[], bnn_data_start[], bnn_data_end[], bnn_bss_start[], bnn_bss_end[];
extern const uint32_t bnn_data_load[];

void bnn_reset(void);

static uint32_t arena[CORE_ARENA_WORDS];
static uint32_t image[(CORE_IMAGE_BYTES + 3u) / 4u];

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

static uint32_t noise(void)
{
    static uint32_t state = 0x9E3779B9u;

    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static void fill(uint8_t *pixels, size_t size, uint32_t index)
{
    for (size_t i = 0; i < size; i++) {
        const uint32_t stripe = i % 2u != 0 ? 255u : 0;
        const uint32_t bright = (noise() >> 24) * 3u * index / CORE_IMAGES;
        const uint32_t grey = index == 2u ? stripe : bright > 255u ? 255u : bright;
        pixels[i] = (uint8_t)(index == 1u ? 255u : grey);
    }
}

static int run(const bnn_model_t *model)
{
    const size_t size = (size_t)model->height * model->width * model->channels;
    static bnn_ctx_t ctx;
    int error = bnn_init(&ctx, model, arena, CORE_ARENA_WORDS);

    if (size > CORE_IMAGE_BYTES) {
        return BNN_ERR_SIZE;
    }
    MARK_NETWORK;
    for (uint32_t i = 0; i < CORE_IMAGES && error == BNN_OK; i++) {
        const uint64_t seed = i < 3u ? UINT64_C(0) - i : (uint64_t)noise() << 32 | noise();
        fill((uint8_t *)image, size, i);
        MARK_BEGIN;
        error = bnn_infer(&ctx, (const uint8_t *)image, size, seed);
        MARK_END;
    }
    return error;
}

void bnn_reset(void)
{
    const uint32_t *from = bnn_data_load;
    int error = BNN_OK;

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
    for (uint32_t i = 0; i < CORE_MODELS && error == BNN_OK; i++) {
        error = run(core_models[i]);
    }
    leave(error == BNN_OK ? 0u : 1u);
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
