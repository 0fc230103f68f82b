#include "bnn_small.h" /* before any code */

#include "bnn_server_internal.h"

#include "bnn_health.h"
#include "bnn_port.h"

static size_t put_text(uint8_t *at, const char *text)
{
    size_t size = 0;

    while (size < BNN_TEXT_MAX && text[size] != '\0') {
        at[1u + size] = (uint8_t)text[size];
        size++;
    }
    at[0] = (uint8_t)size;
    return 1u + size;
}

/* Requests the host may have unanswered: one computed, the others buffered. */
static uint8_t window(void)
{
#ifdef BNN_FIELD
    /* One answer is kept for a retry, and a second one computed would be another. */
    return 1u;
#else
    uint32_t capacity = bnn_port_capacity();
    uint32_t buffered = 0;

    if (capacity > BNN_RX_SLACK) {
        buffered = (capacity - BNN_RX_SLACK) / BNN_REQUEST_ENCODED;
    }
    return (uint8_t)(buffered < BNN_WINDOW_MAX ? buffered + 1u : BNN_WINDOW_MAX);
#endif
}

void bnn_answer_check(const bnn_frame_t *request)
{
    if (!bnn_check_empty(request)) {
        return;
    }
#ifdef BNN_FIELD
    /* The key is in flash, and a CRC of it would tell 32 bits of the key. */
    bnn_refuse(request, BNN_ERROR_FIELD, 0);
#else
    bnn_health_check((uint8_t *)bnn_begin_reply());
    bnn_send_reply(request, BNN_CHECK_REPLY);
#endif
}

void bnn_answer_last_fault(const bnn_frame_t *request)
{
    if (!bnn_check_empty(request)) {
        return;
    }
    if ((bnn_health_state() & BNN_STATE_FAULTED) == 0) {
        bnn_refuse(request, BNN_ERROR_NOT_READY, 0);
        return;
    }
    bnn_health_tell_fault((uint8_t *)bnn_begin_reply());
    bnn_send_reply(request, BNN_FAULT_BYTES);
}

void bnn_answer_hello(const bnn_frame_t *request)
{
    uint8_t *reply;
    size_t at = BNN_HELLO_FIXED;

    if (!bnn_check_empty(request)) {
        return;
    }
    reply = (uint8_t *)bnn_begin_reply();
    reply[0] = BNN_FRAME_VERSION;
    reply[1] = BNN_FIRMWARE_MAJOR;
    reply[2] = BNN_FIRMWARE_MINOR;
    reply[3] = BNN_FIRMWARE_PATCH;
    reply[4] = BNN_MODE;
    reply[5] = bnn_port_counter();
    reply[6] = window();
    reply[7] = (uint8_t)BNN_MAX_SEEDS;
    bnn_put_u32(reply + 8, bnn_port_clock_hz());
    bnn_put_u16(reply + 12, (uint16_t)BNN_REQUEST_MAX);
    bnn_put_u16(reply + 14, (uint16_t)BNN_REPLY_MAX);
    bnn_put_u16(reply + 16, bnn_model.height);
    bnn_put_u16(reply + 18, bnn_model.width);
    bnn_put_u16(reply + 20, bnn_model.channels);
    bnn_put_u16(reply + 22, (uint16_t)BNN_MODEL_CLASSES);
    reply[24] = (uint8_t)BNN_MODEL_LOGIT_BYTES;
    reply[25] = bnn_model.generator;
    reply[26] = bnn_model.planes;
    reply[27] = (uint8_t)BNN_MODEL_LAYERS;
    bnn_put_u32(reply + 28, bnn_port_stack_free());
    for (size_t i = 0; i < 32u; i++) {
        reply[32u + i] = bnn_model.sha256[i];
    }
    at += put_text(reply + at, bnn_port_board);
    at += put_text(reply + at, bnn_model.name);
    for (size_t i = 0; i < (size_t)bnn_model.n_layers; i++) {
        bnn_put_u32(reply + at, bnn_model.layers[i].sampled_words);
        at += 4u;
        at += put_text(reply + at, bnn_model.layers[i].name);
    }
    reply[at] = BNN_HELLO_STATE - 1u;
    reply[at + 1u] = bnn_port_reset_cause();
    reply[at + 2u] = bnn_health_state();
    bnn_send_reply(request, at + BNN_HELLO_STATE);
}
