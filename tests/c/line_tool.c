/*
 * The server behind a UART that the tests clock byte by byte.  A command is a
 * letter, a 32-bit size and that many bytes:
 *
 *   'P'  pairs: a byte as the UART heard it, and 1 if it had no stop bit.  They
 *        are given to the server one by one, up to one that makes it change its
 *        baud; the others were heard at the wrong one
 *   'R'  reset
 *
 * An answer is its 32-bit size, then in 32 bits each the number of pairs taken
 * and the baud of now, then what was sent: baud, size, bytes, as often as the
 * baud changed.  All integers are little-endian.
 */
#include "bnn_frame.h"
#include "bnn_port.h"
#include "bnn_server.h"

#include <stdio.h>
#include <string.h>

#define MOST 100000u
#define OWN_BAUD 115200u

const char bnn_port_board[] = "line";
uint32_t bnn_port_kept[BNN_PORT_KEPT_WORDS];

static uint32_t hz = 48000000u; /* of the UART, as an STM32's with 16 samples a bit */
static bool tells = true;       /* that a stop bit was missing */
static uint32_t baud = OWN_BAUD;
static uint32_t ticks;
static uint32_t received;
static uint32_t garbled;
static int waiting = -1;

static uint8_t out[MOST];
static size_t out_size;
static size_t piece; /* where the head of the last piece is */

static void emit_word(uint32_t value)
{
    if (out_size + 4u <= sizeof out) {
        bnn_put_u32(out + out_size, value);
        out_size += 4u;
    }
}

static void begin_piece(void)
{
    piece = out_size;
    emit_word(baud);
    emit_word(0);
}

void bnn_port_init(void)
{
}

int bnn_port_read(void)
{
    int byte = waiting;

    waiting = -1;
    return byte;
}

void bnn_port_wait(void)
{
}

void bnn_port_write(const uint8_t *data, size_t size)
{
    if (out_size + size <= sizeof out) {
        memcpy(out + out_size, data, size);
        out_size += size;
        bnn_put_u32(out + piece + 4u, bnn_get_u32(out + piece + 4u) + (uint32_t)size);
    }
}

uint32_t bnn_port_baud(uint32_t wanted)
{
    uint32_t rate = wanted == 0 ? baud : wanted;
    uint32_t divisor = (hz + rate / 2u) / rate;

    return divisor < 16u || divisor > 0xffffu ? 0 : (hz + divisor / 2u) / divisor;
}

void bnn_port_set_baud(uint32_t wanted)
{
    baud = wanted == 0 ? OWN_BAUD : wanted;
    begin_piece();
}

uint32_t bnn_port_garbled(void)
{
    return tells ? garbled : 0;
}

uint32_t bnn_port_received(void)
{
    return received;
}

uint32_t bnn_port_capacity(void)
{
    return 2048;
}

bool bnn_port_overrun(void)
{
    return false;
}

uint32_t bnn_port_ticks(void)
{
    return ticks++;
}

uint8_t bnn_port_counter(void)
{
    return BNN_COUNTER_TIMER;
}

uint32_t bnn_port_clock_hz(void)
{
    return 0;
}

uint32_t bnn_port_stack_free(void)
{
    return 0;
}

uint8_t bnn_port_reset_cause(void)
{
    return BNN_RESET_POWER;
}

bool bnn_port_image(const uint8_t **bytes, size_t *size, uint32_t *crc)
{
    (void)bytes;
    (void)size;
    (void)crc;
    return false;
}

static uint32_t push(const uint8_t *pairs, size_t size)
{
    const uint32_t before = baud;
    size_t at = 0;

    while (at + 2u <= size && baud == before) {
        waiting = pairs[at];
        garbled += pairs[at + 1u];
        received++;
        at += 2u;
        do {
        } while (bnn_server_poll());
    }
    return (uint32_t)(at / 2u);
}

int main(int argc, char **argv)
{
    static uint8_t data[MOST];
    uint8_t head[5];

    tells = argc < 2 || strcmp(argv[1], "deaf") != 0;
    bnn_server_init();
    while (fread(head, 1, sizeof head, stdin) == sizeof head) {
        size_t size = bnn_get_u32(head + 1);
        uint32_t taken = 0;

        if (size > sizeof data || fread(data, 1, size, stdin) != size) {
            return 2;
        }
        out_size = 12u;
        begin_piece();
        if (head[0] == 'P') {
            taken = push(data, size);
        } else {
            baud = OWN_BAUD;
            bnn_server_init();
        }
        bnn_put_u32(out, (uint32_t)(out_size - 4u));
        bnn_put_u32(out + 4u, taken);
        bnn_put_u32(out + 8u, baud);
        fwrite(out, 1, out_size, stdout);
        fflush(stdout);
    }
    return 0;
}
