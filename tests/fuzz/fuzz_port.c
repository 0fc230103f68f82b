/*
 * The port of the harnesses.  Its counter and its count of received bytes are
 * chance-like but the same for the same input, so that a finding repeats.
 */
#include "fuzz_port.h"

#include <string.h>

#include "fuzz_check.h"

const char bnn_port_board[] = "fuzz";
uint32_t bnn_port_kept[BNN_PORT_KEPT_WORDS];
jmp_buf fuzz_reset;

static const uint8_t image[] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
#define IMAGE_CRC 0xCBF43926u
#define OWN_BAUD 115200u

static const uint8_t *input;
static size_t input_size;
static size_t input_at;
static uint8_t sent[FUZZ_SENT_MOST];
static size_t sent_size;
static uint32_t ticks;
static uint32_t hertz;
static bool lost;
static bool wrong_image;
static bool may_pause;
static bool paused;
static uint32_t garbled;
static uint32_t baud_now;

void fuzz_port_start(const uint8_t *data, size_t size, bool overrun, bool corrupt, bool pauses,
                     uint32_t clock_hz)
{
    input = data;
    input_size = size;
    input_at = 0;
    sent_size = 0;
    ticks = 0xFFFFFF00u;
    hertz = clock_hz;
    lost = overrun;
    wrong_image = corrupt;
    may_pause = pauses;
    paused = false;
    baud_now = 0;
    memset(bnn_port_kept, 0, sizeof bnn_port_kept);
}

void fuzz_port_more(const uint8_t *data, size_t size)
{
    FUZZ_CHECK(fuzz_port_empty(), "the firmware left bytes unread");
    input = data;
    input_size = size;
    input_at = 0;
    may_pause = false;
}

size_t fuzz_port_taken(void)
{
    return input_at;
}

bool fuzz_port_empty(void)
{
    return input_at == input_size;
}

const uint8_t *fuzz_port_sent(size_t *size)
{
    *size = sent_size;
    sent_size = 0;
    return sent;
}

void fuzz_exit(int status)
{
    (void)status;
    longjmp(fuzz_reset, 1);
}

void bnn_port_init(void)
{
}

int bnn_port_read(void)
{
    if (input_at == input_size) {
        return -1;
    }
    if (may_pause && !paused && input_at % 37u == 5u) {
        paused = true;
        return -1;
    }
    paused = false;
    /* One byte in 256 comes without a stop bit. */
    garbled += input[input_at] == 0xFEu ? 1u : 0u;
    return input[input_at++];
}

void bnn_port_wait(void)
{
}

void bnn_port_write(const uint8_t *data, size_t size)
{
    FUZZ_CHECK(size <= sizeof sent - sent_size, "%zu bytes sent at once", sent_size + size);
    memcpy(sent + sent_size, data, size);
    sent_size += size;
}

uint32_t bnn_port_received(void)
{
    /* Some inferences find that bytes came in, and none waits long for one. */
    ticks += 3u;
    return ticks / 64u;
}

uint32_t bnn_port_capacity(void)
{
    return 4096;
}

/* A UART with a coarse divider: some bauds are off, and the ends of its range are out. */
uint32_t bnn_port_baud(uint32_t baud)
{
    if (baud == 0) {
        return baud_now == 0 ? OWN_BAUD : baud_now - baud_now % 13u;
    }
    return baud < 300u || baud > 4000000u ? 0 : baud - baud % 13u;
}

void bnn_port_set_baud(uint32_t baud)
{
    FUZZ_CHECK(bnn_port_baud(baud) != 0, "a baud of %u, which was never made", (unsigned)baud);
    baud_now = baud;
}

uint32_t fuzz_port_baud(void)
{
    return baud_now;
}

uint32_t bnn_port_garbled(void)
{
    return garbled;
}

bool bnn_port_overrun(void)
{
    bool told = lost;

    lost = false;
    return told;
}

uint32_t bnn_port_ticks(void)
{
    ticks += 7u;
    return ticks;
}

uint8_t bnn_port_counter(void)
{
    return hertz != 0 ? BNN_COUNTER_DWT : BNN_COUNTER_TIMER;
}

uint32_t bnn_port_clock_hz(void)
{
    return hertz;
}

uint32_t bnn_port_stack_free(void)
{
    return 100;
}

uint8_t bnn_port_reset_cause(void)
{
    return BNN_RESET_POWER;
}

bool bnn_port_image(const uint8_t **bytes, size_t *size, uint32_t *crc)
{
    *bytes = image;
    *size = sizeof image;
    *crc = wrong_image ? ~IMAGE_CRC : IMAGE_CRC;
    return true;
}
