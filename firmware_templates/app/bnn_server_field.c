/*
 * What the model answers in field mode, in the place of bnn_server_infer.c: no
 * request carries a seed, none brings out a drawn weight or the time of a layer,
 * and an answer that the host did not get is repeated and never computed again.
 */
#include "bnn_small.h" /* before any code */

#include "bnn_server_internal.h"

#include "bnn.h"
#include "bnn_field.h"
#include "bnn_port.h"

BNN_STATIC_ASSERT(BNN_MAX_SEEDS <= BNN_FIELD_BLOCK, a_request_fits_a_block);

#define ANSWER_BYTES (BNN_INFER_REPLY_MAX + BNN_FRAME_OVERHEAD)

static uint32_t arena[BNN_MODEL_ARENA_WORDS];

/* The last answer, sealed.  Apart from the other replies, so that none of them displaces it. */
static uint8_t answer[ANSWER_BYTES];

static struct {
    bnn_ctx_t context;
    int status; /* of making it */
    size_t size; /* of the answer; 0 if there is none */
    uint16_t sequence;
    uint32_t crc;
} state;

/* One draw, the first of a request with the whole network; its status. */
static int infer_once(const uint8_t *image, bool first, uint64_t seed, uint8_t *at, bool *polluted)
{
    const uint32_t received = bnn_port_received();
    const uint32_t start = bnn_port_ticks();
    const int status = first ? bnn_infer(&state.context, image, (size_t)BNN_MODEL_INPUT_BYTES, seed)
                             : bnn_redraw(&state.context, seed);
    const uint32_t ticks = bnn_port_ticks() - start;

    *polluted = *polluted || bnn_port_received() != received;
    bnn_put_u32(at, ticks);
    at += 4;
    for (unsigned i = 0; i < (unsigned)bnn_model.classes; i++) {
        int64_t logit = bnn_logit(&state.context, i);

        if (BNN_MODEL_LOGIT_BYTES == 8) {
            bnn_put_u64(at, (uint64_t)logit);
        } else {
            bnn_put_u32(at, (uint32_t)((uint64_t)logit & 0xFFFFFFFFu));
        }
        at += BNN_MODEL_LOGIT_BYTES;
    }
    return status;
}

/* True if the request can be carried out; or it is refused. */
static bool proper(const bnn_frame_t *request)
{
    const size_t expected = 2u + (size_t)BNN_MODEL_INPUT_BYTES;

    if (request->length < 2u) {
        bnn_refuse(request, BNN_ERROR_BAD_LENGTH, (uint32_t)expected);
        return false;
    }
    if (request->payload[0] != 0) {
        bnn_refuse(request, BNN_ERROR_BAD_ARGUMENT, 0);
        return false;
    }
    if (request->payload[1] < 1u || request->payload[1] > BNN_MAX_SEEDS) {
        bnn_refuse(request, BNN_ERROR_BAD_ARGUMENT, 1);
        return false;
    }
    if (request->length == expected + 8u * (size_t)request->payload[1]) {
        /* Seeds of the host's, as in evaluation mode. */
        bnn_refuse(request, BNN_ERROR_FIELD, 0);
        return false;
    }
    if (request->length != expected) {
        bnn_refuse(request, BNN_ERROR_BAD_LENGTH, (uint32_t)expected);
        return false;
    }
    if (!bnn_check_sound(request)) {
        return false;
    }
    if (state.status != BNN_OK) {
        bnn_refuse(request, BNN_ERROR_MODEL, (uint32_t)-state.status);
        return false;
    }
    return true;
}

void bnn_answer_infer(const bnn_frame_t *request)
{
    uint8_t *reply = answer + BNN_FRAME_HEADER;
    bool polluted = false;
    uint64_t first;
    size_t draws;

    if (state.size != 0 && request->sequence == state.sequence && request->crc == state.crc) {
        bnn_frame_send(answer, state.size, bnn_port_write);
        return;
    }
    if (!proper(request)) {
        return;
    }
    draws = request->payload[1];
    state.size = 0;
    if (!bnn_field_take((uint32_t)draws, &first)) {
        bnn_refuse(request, BNN_ERROR_COUNTER, 0);
        return;
    }
    for (size_t i = 0; i < draws; i++) {
        int status;

        /* As in evaluation mode: between draws, and outside of what is counted. */
        bnn_port_alive();
        status = infer_once(request->payload + 2, i == 0, bnn_field_seed(first + i),
                            reply + BNN_INFER_HEAD + i * BNN_DRAW_BYTES, &polluted);
        if (status != BNN_OK) {
            bnn_refuse(request, BNN_ERROR_MODEL, (uint32_t)-status);
            return;
        }
    }
    reply[0] = (uint8_t)draws;
    reply[1] = (uint8_t)BNN_MODEL_LOGIT_BYTES;
    reply[2] = (uint8_t)(polluted ? BNN_FLAG_POLLUTED : 0);
    reply[3] = 0;
    bnn_put_u64(reply + 4, first);
    state.size = bnn_frame_seal(answer, BNN_TYPE_INFER | BNN_TYPE_REPLY, request->sequence,
                                (uint16_t)(BNN_INFER_HEAD + draws * BNN_DRAW_BYTES));
    state.sequence = request->sequence;
    state.crc = request->crc;
    bnn_frame_send(answer, state.size, bnn_port_write);
}

void bnn_answer_counters(const bnn_frame_t *request)
{
    bnn_refuse(request, BNN_ERROR_FIELD, 0);
}

void bnn_answer_sample(const bnn_frame_t *request)
{
    bnn_refuse(request, BNN_ERROR_FIELD, 0);
}

void bnn_infer_reset(void)
{
    state.size = 0;
    bnn_field_init();
    state.status = bnn_init(&state.context, &bnn_model, arena, (size_t)BNN_MODEL_ARENA_WORDS);
    if (state.status == BNN_OK) {
        state.context.hook = NULL;
        state.context.user = NULL;
    }
}
