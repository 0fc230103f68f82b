/*
 * The least that a firmware needs around a network: a vector table, memory set
 * up, and a call. What it says goes through semihosting, which QEMU and debug
 * probes understand.
 */
#include <stddef.h>
#include <stdint.h>

#include "bnn_predict.h"

extern uint32_t data_start[], data_end[], data_load[], bss_start[], bss_end[], stack_top[];

void reset(void);
static void stop(void);

/* Stack, reset, and the faults; there are no interrupts. */
__attribute__((section(".vectors"), used)) static const struct {
    const void *stack;
    void (*handlers[15])(void);
} vectors = {stack_top, {reset, stop, stop, stop, stop, stop}};

/* gcc may call these for plain assignments; a firmware with a C library has them already. */
void *memcpy(void *to, const void *from, size_t size)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    while (size-- != 0) {
        *t++ = *f++;
    }
    return to;
}

void *memset(void *to, int value, size_t size)
{
    uint8_t *t = to;
    while (size-- != 0) {
        *t++ = (uint8_t)value;
    }
    return to;
}

static int semihost(int operation, const void *block)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void say(const char *text)
{
    (void)semihost(0x04, text); /* SYS_WRITE0 */
}

static void leave(int failed)
{
    /* SYS_EXIT: ADP_Stopped_ApplicationExit, or an error. */
    (void)semihost(0x18, (const void *)(uintptr_t)(failed ? 0x20023u : 0x20026u));
    stop();
}

static void stop(void)
{
    for (;;) {
    }
}

/* A seven, drawn by hand: one character a pixel, 16 by 16, in the middle of the image. */
static const char drawing[16][17] = {
    "................", "................", ".##############.", ".##############.",
    "............##..", "...........##...", "...........##...", "..........##....",
    "..........##....", ".........##.....", ".........##.....", "........##......",
    "........##......", ".......##.......", ".......##.......", "................",
};

static uint8_t image[BNN_MODEL_INPUT_BYTES];

void reset(void)
{
    /* The FPU is off after a reset; code for it would fault. */
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
    const uint32_t *from = data_load;
    for (uint32_t *to = data_start; to < data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = bss_start; to < bss_end;) {
        *to++ = 0;
    }

    if (bnn_selftest() != 0) {
        say("the self-test failed: this build does not give the reference's logits\n");
        leave(1);
    }
    say("self-test: the logits are those of the reference\n");

    for (unsigned row = 0; row < 16; row++) {
        for (unsigned column = 0; column < 16; column++) {
            image[(row + 6) * 28 + column + 6] = drawing[row][column] == '#' ? 255 : 0;
        }
    }
    int label = bnn_predict(image, 0);
    if (label < 0 || label > 9) {
        say("no prediction\n");
        leave(1);
    }
    char text[] = "the drawing is taken for a 0\n";
    text[sizeof text - 3] = (char)('0' + label);
    say(text);
    leave(0);
}
