#include "bnn_small.h" /* before any code */

#include "bnn_health.h"

#include "bnn_port.h"

/* The kept words: this, the CRC-32 of what follows, the payload. */
#define MAGIC 0x62667431u
#define FAULT_WORDS (BNN_FAULT_BYTES / 4u)

BNN_STATIC_ASSERT(2u + FAULT_WORDS <= BNN_PORT_KEPT_WORDS, a_fault_can_be_kept);

static uint8_t state;

static uint32_t kept_crc(void)
{
    return bnn_crc32((const uint8_t *)&bnn_port_kept[2], BNN_FAULT_BYTES);
}

void bnn_health_init(uint8_t check[BNN_CHECK_REPLY])
{
    state = 0;
    if (bnn_port_kept[0] == MAGIC && bnn_port_kept[1] == kept_crc()) {
        state = BNN_STATE_FAULTED;
    }
    bnn_health_check(check);
}

uint8_t bnn_health_state(void)
{
    return state;
}

void bnn_health_check(uint8_t check[BNN_CHECK_REPLY])
{
    const uint8_t *bytes;
    size_t size;
    uint32_t expected;
    uint32_t found = 0;

    state = (uint8_t)(state & (unsigned)BNN_STATE_FAULTED);
    if (bnn_port_image(&bytes, &size, &expected)) {
        found = bnn_crc32(bytes, size);
        state = (uint8_t)(state | BNN_STATE_CHECKED | (found == expected ? 0 : BNN_STATE_CORRUPT));
    } else {
        size = 0;
        expected = 0;
    }
    bnn_put_u32(check, expected);
    bnn_put_u32(check + 4, found);
    bnn_put_u32(check + 8, (uint32_t)size);
}

void bnn_health_keep_fault(const uint8_t fault[BNN_FAULT_BYTES])
{
    for (size_t i = 0; i < FAULT_WORDS; i++) {
        bnn_port_kept[2u + i] = bnn_get_u32(fault + 4u * i);
    }
    bnn_port_kept[1] = kept_crc();
    bnn_port_kept[0] = MAGIC;
}

void bnn_health_tell_fault(uint8_t fault[BNN_FAULT_BYTES])
{
    for (size_t i = 0; i < FAULT_WORDS; i++) {
        bnn_put_u32(fault + 4u * i, bnn_port_kept[2u + i]);
    }
    bnn_port_kept[0] = 0;
    state = (uint8_t)(state & ~(unsigned)BNN_STATE_FAULTED);
}
