#include "bnn_small.h" /* before any code */

#include "bnn_server_internal.h"

#include "bnn.h"
#include "bnn_port.h"

/*
 * Loops over layers and classes read their count from bnn_model, not from the
 * macros: compilers then unroll none of them, and the code has nearly the same
 * size whatever the network.
 */

static uint32_t arena[BNN_MODEL_ARENA_WORDS];

static uint32_t layer_ticks[BNN_MODEL_LAYERS];

/* In one piece, as in the other files of the server: one address is loaded for all of it. */
static struct {
    bnn_ctx_t context;
    int status; /* of making it */
    uint32_t layer_start;
    bool inferred;
    bool polluted; /* the last draw */
} state;

static void count_layer(void *user, unsigned layer)
{
    uint32_t now = bnn_port_ticks();

    (void)user;
    if (layer < (unsigned)BNN_MODEL_LAYERS) {
        layer_ticks[layer] = now - state.layer_start;
    }
    /* Read again: storing the count belongs to no layer. */
    state.layer_start = bnn_port_ticks();
}

/*
 * The first draw of a request runs the whole network, a further one only what
 * depends on the seed; their ticks say as much.
 */
static int infer_once(const uint8_t *image, bool first, uint64_t seed, uint8_t *at)
{
    uint32_t received;
    uint32_t start;
    uint32_t ticks;
    int status;

    for (size_t i = 0; i < (size_t)bnn_model.n_layers; i++) {
        layer_ticks[i] = 0;
    }
    received = bnn_port_received();
    start = bnn_port_ticks();
    state.layer_start = start;
    status = first ? bnn_infer(&state.context, image, (size_t)BNN_MODEL_INPUT_BYTES, seed)
                   : bnn_redraw(&state.context, seed);
    ticks = bnn_port_ticks() - start;
    state.polluted = bnn_port_received() != received;
    if (status != BNN_OK) {
        return status;
    }
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
    return BNN_OK;
}

void bnn_answer_infer(const bnn_frame_t *request)
{
    const size_t image_end = 2u + (size_t)BNN_MODEL_INPUT_BYTES;
    size_t seeds;
    size_t expected;
    uint8_t *reply;
    bool polluted = false;

    if (request->length < 2u) {
        bnn_refuse(request, BNN_ERROR_BAD_LENGTH, (uint32_t)(image_end + 8u));
        return;
    }
    if (request->payload[0] != 0) {
        bnn_refuse(request, BNN_ERROR_BAD_ARGUMENT, 0);
        return;
    }
    seeds = request->payload[1];
    if (seeds < 1u || seeds > BNN_MAX_SEEDS) {
        bnn_refuse(request, BNN_ERROR_BAD_ARGUMENT, 1);
        return;
    }
    expected = image_end + 8u * seeds;
    if (request->length != expected) {
        bnn_refuse(request, BNN_ERROR_BAD_LENGTH, (uint32_t)expected);
        return;
    }
    if (!bnn_check_sound(request)) {
        return;
    }
    if (state.status != BNN_OK) {
        bnn_refuse(request, BNN_ERROR_MODEL, (uint32_t)-state.status);
        return;
    }
    reply = (uint8_t *)bnn_begin_reply();
    state.inferred = false;
    for (size_t i = 0; i < seeds; i++) {
        uint64_t seed = bnn_get_u64(request->payload + image_end + 8u * i);
        uint8_t *at = reply + 4u + i * BNN_DRAW_BYTES;
        int status;

        /* Here, since a request may have many seeds, and outside of what is counted. */
        bnn_port_alive();
        status = infer_once(request->payload + 2, i == 0, seed, at);

        if (status != BNN_OK) {
            bnn_refuse(request, BNN_ERROR_MODEL, (uint32_t)-status);
            return;
        }
        polluted = polluted || state.polluted;
    }
    state.inferred = true;
    reply[0] = (uint8_t)seeds;
    reply[1] = (uint8_t)BNN_MODEL_LOGIT_BYTES;
    reply[2] = (uint8_t)(polluted ? BNN_FLAG_POLLUTED : 0);
    reply[3] = 0;
    bnn_send_reply(request, 4u + seeds * BNN_DRAW_BYTES);
}

void bnn_answer_counters(const bnn_frame_t *request)
{
    uint8_t *reply;

    if (!bnn_check_empty(request)) {
        return;
    }
    if (!state.inferred) {
        bnn_refuse(request, BNN_ERROR_NOT_READY, 0);
        return;
    }
    reply = (uint8_t *)bnn_begin_reply();
    reply[0] = (uint8_t)BNN_MODEL_LAYERS;
    reply[1] = (uint8_t)(state.polluted ? BNN_FLAG_POLLUTED : 0);
    reply[2] = 0;
    reply[3] = 0;
    for (size_t i = 0; i < (size_t)bnn_model.n_layers; i++) {
        bnn_put_u32(reply + 4u + 4u * i, layer_ticks[i]);
    }
    bnn_send_reply(request, BNN_COUNTERS_REPLY);
}

void bnn_answer_sample(const bnn_frame_t *request)
{
    uint32_t *words;
    uint8_t *reply;
    uint8_t layer;
    uint64_t seed;
    uint32_t first;
    uint32_t count;
    uint32_t available;
    int status;

    if (request->length != BNN_SAMPLE_REQUEST) {
        bnn_refuse(request, BNN_ERROR_BAD_LENGTH, BNN_SAMPLE_REQUEST);
        return;
    }
    layer = request->payload[0];
    seed = bnn_get_u64(request->payload + 1);
    first = bnn_get_u32(request->payload + 9);
    count = bnn_get_u16(request->payload + 13);
    if (layer >= (unsigned)BNN_MODEL_LAYERS) {
        bnn_refuse(request, BNN_ERROR_BAD_ARGUMENT, 0);
        return;
    }
    available = bnn_model.layers[layer].sampled_words;
    if (first >= available) {
        bnn_refuse(request, BNN_ERROR_BAD_ARGUMENT, 9);
        return;
    }
    if (count < 1u || count > BNN_REPLY_MAX / 4u || count > available - first) {
        bnn_refuse(request, BNN_ERROR_BAD_ARGUMENT, 13);
        return;
    }
    if (!bnn_check_sound(request)) {
        return;
    }
    words = bnn_begin_reply();
    reply = (uint8_t *)words;
    status = bnn_sample(&bnn_model, layer, seed, first, count, words);
    if (status != BNN_OK) {
        bnn_refuse(request, BNN_ERROR_MODEL, (uint32_t)-status);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        /* In place: the wire is little-endian whatever the core is. */
        bnn_put_u32(reply + 4u * i, words[i]);
    }
    bnn_send_reply(request, 4u * (size_t)count);
}

void bnn_infer_reset(void)
{
    state.inferred = false;
    state.polluted = false;
    state.status = bnn_init(&state.context, &bnn_model, arena, (size_t)BNN_MODEL_ARENA_WORDS);
    if (state.status == BNN_OK) {
        state.context.hook = count_layer;
        state.context.user = NULL;
    }
}
