#include "bnn_small.h" /* before any code */

#include "bnn_server_internal.h"

#include "bnn_port.h"

/* What can be made must not be off by more than 2 %. */
#define TOLERANCE 50u

/*
 * A host at another baud is heard as garbage: bytes without a stop bit, zeros
 * that nobody sent, or now and then a byte.  A noisy line is heard as that,
 * too, but with sound frames in between: a frame that was hit by noise counts
 * 4 at most.
 */
#define TROUBLES 32u
#define TROUBLED_BYTES (8u * BNN_REQUEST_ENCODED)

static struct {
    bool moved; /* from the board's own baud */
    uint32_t troubles; /* when a sound frame came last */
    uint32_t received;
} state;

static uint32_t troubles(void)
{
    return bnn_delimiters + bnn_port_garbled();
}

void bnn_baud_init(void)
{
    state.moved = false;
}

void bnn_baud_heard(void)
{
    if (state.moved) {
        state.troubles = troubles();
        state.received = bnn_port_received();
    }
}

void bnn_baud_watch(void)
{
    if (state.moved && (troubles() - state.troubles >= TROUBLES ||
                        bnn_port_received() - state.received >= TROUBLED_BYTES)) {
        state.moved = false;
        bnn_port_set_baud(0);
    }
}

void bnn_answer_baud(const bnn_frame_t *request)
{
    uint8_t *reply;
    uint32_t baud;
    uint32_t made;
    uint32_t off;

    if (request->length < BNN_BAUD_FIXED || request->length > BNN_REPLY_MAX) {
        bnn_refuse(request, BNN_ERROR_BAD_LENGTH, BNN_BAUD_FIXED);
        return;
    }
    baud = bnn_get_u32(request->payload);
    made = bnn_port_baud(baud);
    off = made > baud ? made - baud : baud - made;
    if (made == 0 || (baud != 0 && off > baud / TOLERANCE)) {
        bnn_refuse(request, BNN_ERROR_BAD_ARGUMENT, 0);
        return;
    }
    reply = (uint8_t *)bnn_begin_reply();
    bnn_put_u32(reply, made);
    for (size_t i = BNN_BAUD_FIXED; i < request->length; i++) {
        reply[i] = request->payload[i];
    }
    bnn_send_reply(request, request->length);
    /* Not kept: a repeated request must be carried out again, not only answered. */
    (void)bnn_begin_reply();
    if (baud != 0) {
        bnn_port_set_baud(baud);
        state.moved = true;
        bnn_baud_heard();
    }
}
