/*
 * A small firmware that exercises the port API, for the tests of toolchain/.
 *
 * Commands are one letter; numbers are little endian.
 *   E u16 n, n bytes   the same n bytes back, as they come
 *   I                  u8 counter kind, u32 clock Hz, u32 ring capacity,
 *                      u32 stack free, u32 received, u8 overrun, u8 length, name
 *   W u32 n            ticks of n rounds of work (u32), then its result (u32)
 *   R u32 baud         u32 what the UART makes of it; if anything, it then does
 *   G                  u32 bytes without a stop bit
 *   D u32 n            n rounds of work, then "d": time for bytes to pile up
 *   U, B, S            undefined instruction, bad address, stack overflow
 * A fault sends "F", the eight frame words, CFSR, HFSR, MMFAR and BFAR.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bnn_port.h"

int main(void);

static uint8_t next(void)
{
    for (;;) {
        const int byte = bnn_port_read();
        if (byte >= 0) {
            return (uint8_t)byte;
        }
        bnn_port_wait();
    }
}

static uint32_t next_number(unsigned bytes)
{
    uint32_t value = 0u;
    for (unsigned at = 0u; at < bytes; at++) {
        value |= (uint32_t)next() << (8u * at);
    }
    return value;
}

static void send_byte(uint8_t byte)
{
    bnn_port_write(&byte, 1u);
}

static void send_number(uint32_t value)
{
    for (unsigned shift = 0u; shift < 32u; shift += 8u) {
        send_byte((uint8_t)(value >> shift));
    }
}

/* Some data, some zero-initialised: proves that start-up filled both. */
static volatile uint32_t seed = 0x12345678u;
static volatile uint32_t zero;

__attribute__((noinline)) static uint32_t work(uint32_t rounds)
{
    uint32_t state = seed + zero;
    for (uint32_t round = 0u; round < rounds; round++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        __asm__ volatile("" : "+r"(state));
    }
    return state;
}

/* Not a tail call: the array must still be there after the call. */
__attribute__((noinline)) static uint32_t dig(uint32_t depth)
{
    volatile uint32_t local[16];
    local[depth % 16u] = depth;
    if (depth == 0u) {
        return 0u;
    }
    const uint32_t below = dig(depth - 1u);
    return below + local[depth % 16u];
}

static void info(void)
{
    size_t length = 0u;
    while (bnn_port_board[length] != '\0') {
        length++;
    }
    send_byte(bnn_port_counter());
    send_number(bnn_port_clock_hz());
    send_number(bnn_port_capacity());
    send_number(bnn_port_stack_free());
    send_number(bnn_port_received());
    send_byte(bnn_port_overrun() ? 1u : 0u);
    send_byte((uint8_t)length);
    bnn_port_write((const uint8_t *)bnn_port_board, length);
}

static void measure(void)
{
    const uint32_t rounds = next_number(4u);
    const uint32_t start = bnn_port_ticks();
    const uint32_t result = work(rounds);
    const uint32_t end = bnn_port_ticks();
    send_number(end - start);
    send_number(result);
}

static void echo(void)
{
    for (uint32_t left = next_number(2u); left > 0u; left--) {
        send_byte(next());
    }
}

static void change_baud(void)
{
    const uint32_t baud = next_number(4u);
    const uint32_t made = bnn_port_baud(baud);
    send_number(made);
    if (made != 0u) {
        bnn_port_set_baud(baud);
    }
}

void bnn_app_fault(const uint32_t frame[8], uint32_t cfsr, uint32_t hfsr, uint32_t mmfar,
                   uint32_t bfar)
{
    send_byte('F');
    for (unsigned at = 0u; at < 8u; at++) {
        send_number(frame[at]);
    }
    send_number(cfsr);
    send_number(hfsr);
    send_number(mmfar);
    send_number(bfar);
}

int main(void)
{
    bnn_port_init();
    for (;;) {
        switch (next()) {
        case 'E':
            echo();
            break;
        case 'I':
            info();
            break;
        case 'W':
            measure();
            break;
        case 'R':
            change_baud();
            break;
        case 'G':
            send_number(bnn_port_garbled());
            break;
        case 'D':
            (void)work(next_number(4u));
            send_byte('d');
            break;
        case 'U':
            __asm__ volatile("udf #0");
            break;
        case 'B':
            /* Reserved in the ARMv7-M map of every chip here; an opaque pointer. */
            {
                volatile uint32_t *bad = (volatile uint32_t *)(uintptr_t)(0x60000000u + zero);
                (void)*bad;
            }
            break;
        case 'S':
            send_number(dig(0x100000u + zero));
            break;
        default:
            break;
        }
    }
}
