/*
 * The firmware that the link's rate is held against: on the same driver, it takes
 * requests and sends replies of the sizes that it was told first (u16 each, little
 * endian).  A byte after them says whether it runs the network on each request
 * (1) or computes nothing (0).  There is no protocol and nothing is checked.
 */
#include <stdint.h>

#include "bnn.h"
#include "bnn_model.h"
#include "bnn_port.h"

#define MOST 4096u

int main(void);

static uint32_t words[MOST / 4u];
static uint8_t *const data = (uint8_t *)words;
static uint32_t arena[BNN_MODEL_ARENA_WORDS];
static bnn_ctx_t context;

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

static uint32_t next_size(void)
{
    const uint32_t low = next();
    const uint32_t size = low + 256u * next();
    return size < MOST ? size : MOST;
}

void bnn_app_fault(const uint32_t frame[8], uint32_t cfsr, uint32_t hfsr, uint32_t mmfar,
                   uint32_t bfar)
{
    (void)frame;
    (void)cfsr;
    (void)hfsr;
    (void)mmfar;
    (void)bfar;
}

int main(void)
{
    uint32_t request;
    uint32_t reply;
    uint8_t computes;

    bnn_port_init();
    request = next_size();
    reply = next_size();
    computes = next();
    (void)bnn_init(&context, &bnn_model, arena, (size_t)BNN_MODEL_ARENA_WORDS);
    for (;;) {
        for (uint32_t at = 0u; at < request; at++) {
            data[at] = next();
        }
        if (computes != 0u) {
            (void)bnn_infer(&context, data, (size_t)BNN_MODEL_INPUT_BYTES, 0u);
        }
        bnn_port_write(data, reply);
    }
}
