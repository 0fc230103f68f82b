#include "bnn_small.h" /* before any code */

#include "bnn_server.h"

#include "bnn.h"
#include "bnn_health.h"
#include "bnn_port.h"
#include "bnn_protocol.h"

#define WORDS(bytes) (((bytes) + 3u) / 4u)

/*
 * Loops over layers and classes read their count from bnn_model, not from the
 * macros: compilers then unroll none of them, and the code has nearly the same
 * size whatever the network.
 */

/*
 * Kernels read the image and write sampled words as 32-bit units.  A request
 * starts at the beginning of its buffer: 6 bytes of header and 2 of INFER
 * fields put the image at offset 8.  A reply starts two bytes in, which puts
 * its payload, and so the sampled words, at offset 8 as well.
 */
#define REPLY_SHIFT 2u

static uint32_t request_words[WORDS(BNN_REQUEST_MAX + BNN_FRAME_OVERHEAD)];
static uint32_t reply_words[WORDS(REPLY_SHIFT + BNN_REPLY_MAX + BNN_FRAME_OVERHEAD)];
static uint8_t *const reply_body = (uint8_t *)reply_words + REPLY_SHIFT;
static uint8_t *const reply = (uint8_t *)reply_words + REPLY_SHIFT + BNN_FRAME_HEADER;

static uint32_t arena[BNN_MODEL_ARENA_WORDS];
static bnn_ctx_t context;
static int context_state;

static bnn_decoder_t decoder;
static uint16_t bad_frames;

/*
 * The reply buffer doubles as the cache of the last answer: a host that lost
 * the reply asks again with the same sequence number and the same bytes, and
 * gets it without a second inference.
 */
static bool cached;
static uint16_t cached_sequence;
static uint32_t cached_crc;
static size_t cached_size;

/* Read by bnn_app_fault(), which interrupts whatever was going on. */
static volatile uint16_t current_sequence;
static volatile uint8_t current_type;

static uint32_t layer_ticks[BNN_MODEL_LAYERS];
static uint32_t layer_start;
static bool inferred;
static bool last_polluted;

static void send_reply(const bnn_frame_t *request, size_t length)
{
    cached_size = bnn_frame_seal(reply_body, (uint8_t)(request->type | BNN_TYPE_REPLY),
                                 request->sequence, (uint16_t)length);
    cached_sequence = request->sequence;
    cached_crc = request->crc;
    cached = true;
    bnn_frame_send(reply_body, cached_size, bnn_port_write);
}

/* From a buffer of its own, so that an error does not cost the cached reply. */
static void send_error(uint8_t code, uint8_t type, uint16_t sequence, uint32_t detail)
{
    uint8_t body[BNN_FRAME_OVERHEAD + 4u];
    size_t size;

    body[BNN_FRAME_HEADER] = code;
    body[BNN_FRAME_HEADER + 1u] = type;
    bnn_put_u16(body + BNN_FRAME_HEADER + 2u, (uint16_t)(detail > 0xFFFFu ? 0xFFFFu : detail));
    size = bnn_frame_seal(body, BNN_TYPE_ERROR, sequence, 4);
    bnn_frame_send(body, size, bnn_port_write);
}

static void refuse(const bnn_frame_t *request, uint8_t code, uint32_t detail)
{
    send_error(code, request->type, request->sequence, detail);
}

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
    uint32_t capacity = bnn_port_capacity();
    uint32_t buffered = 0;

    if (capacity > BNN_RX_SLACK) {
        buffered = (capacity - BNN_RX_SLACK) / BNN_REQUEST_ENCODED;
    }
    return (uint8_t)(buffered < BNN_WINDOW_MAX ? buffered + 1u : BNN_WINDOW_MAX);
}

static void answer_check(const bnn_frame_t *request)
{
    if (request->length != 0) {
        refuse(request, BNN_ERROR_BAD_LENGTH, 0);
        return;
    }
    cached = false;
    bnn_health_check(reply);
    send_reply(request, BNN_CHECK_REPLY);
}

static void answer_last_fault(const bnn_frame_t *request)
{
    if (request->length != 0) {
        refuse(request, BNN_ERROR_BAD_LENGTH, 0);
        return;
    }
    if ((bnn_health_state() & BNN_STATE_FAULTED) == 0) {
        refuse(request, BNN_ERROR_NOT_READY, 0);
        return;
    }
    cached = false;
    bnn_health_tell_fault(reply);
    send_reply(request, BNN_FAULT_BYTES);
}

static void answer_hello(const bnn_frame_t *request)
{
    size_t at = BNN_HELLO_FIXED;

    if (request->length != 0) {
        refuse(request, BNN_ERROR_BAD_LENGTH, 0);
        return;
    }
    cached = false;
    reply[0] = BNN_FRAME_VERSION;
    reply[1] = BNN_FIRMWARE_MAJOR;
    reply[2] = BNN_FIRMWARE_MINOR;
    reply[3] = BNN_FIRMWARE_PATCH;
    reply[4] = BNN_MODE_EVALUATION;
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
    send_reply(request, at + BNN_HELLO_STATE);
}

static void count_layer(void *user, unsigned layer)
{
    uint32_t now = bnn_port_ticks();

    (void)user;
    if (layer < (unsigned)BNN_MODEL_LAYERS) {
        layer_ticks[layer] = now - layer_start;
    }
    /* Read again: storing the count belongs to no layer. */
    layer_start = bnn_port_ticks();
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
    layer_start = start;
    status = first ? bnn_infer(&context, image, (size_t)BNN_MODEL_INPUT_BYTES, seed)
                   : bnn_redraw(&context, seed);
    ticks = bnn_port_ticks() - start;
    last_polluted = bnn_port_received() != received;
    if (status != BNN_OK) {
        return status;
    }
    bnn_put_u32(at, ticks);
    at += 4;
    for (unsigned i = 0; i < (unsigned)bnn_model.classes; i++) {
        int64_t logit = bnn_logit(&context, i);

        if (BNN_MODEL_LOGIT_BYTES == 8) {
            bnn_put_u64(at, (uint64_t)logit);
        } else {
            bnn_put_u32(at, (uint32_t)((uint64_t)logit & 0xFFFFFFFFu));
        }
        at += BNN_MODEL_LOGIT_BYTES;
    }
    return BNN_OK;
}

static void answer_infer(const bnn_frame_t *request)
{
    const size_t image_end = 2u + (size_t)BNN_MODEL_INPUT_BYTES;
    size_t seeds;
    size_t expected;
    bool polluted = false;

    if (request->length < 2u) {
        refuse(request, BNN_ERROR_BAD_LENGTH, (uint32_t)(image_end + 8u));
        return;
    }
    if (request->payload[0] != 0) {
        refuse(request, BNN_ERROR_BAD_ARGUMENT, 0);
        return;
    }
    seeds = request->payload[1];
    if (seeds < 1u || seeds > BNN_MAX_SEEDS) {
        refuse(request, BNN_ERROR_BAD_ARGUMENT, 1);
        return;
    }
    expected = image_end + 8u * seeds;
    if (request->length != expected) {
        refuse(request, BNN_ERROR_BAD_LENGTH, (uint32_t)expected);
        return;
    }
    if ((bnn_health_state() & BNN_STATE_CORRUPT) != 0) {
        refuse(request, BNN_ERROR_CORRUPT, 0);
        return;
    }
    if (context_state != BNN_OK) {
        refuse(request, BNN_ERROR_MODEL, (uint32_t)-context_state);
        return;
    }
    cached = false;
    inferred = false;
    for (size_t i = 0; i < seeds; i++) {
        uint64_t seed = bnn_get_u64(request->payload + image_end + 8u * i);
        uint8_t *at = reply + 4u + i * BNN_DRAW_BYTES;
        int status;

        /* Here, since a request may have many seeds, and outside of what is counted. */
        bnn_port_alive();
        status = infer_once(request->payload + 2, i == 0, seed, at);

        if (status != BNN_OK) {
            refuse(request, BNN_ERROR_MODEL, (uint32_t)-status);
            return;
        }
        polluted = polluted || last_polluted;
    }
    inferred = true;
    reply[0] = (uint8_t)seeds;
    reply[1] = (uint8_t)BNN_MODEL_LOGIT_BYTES;
    reply[2] = (uint8_t)(polluted ? BNN_FLAG_POLLUTED : 0);
    reply[3] = 0;
    send_reply(request, 4u + seeds * BNN_DRAW_BYTES);
}

static void answer_counters(const bnn_frame_t *request)
{
    if (request->length != 0) {
        refuse(request, BNN_ERROR_BAD_LENGTH, 0);
        return;
    }
    if (!inferred) {
        refuse(request, BNN_ERROR_NOT_READY, 0);
        return;
    }
    cached = false;
    reply[0] = (uint8_t)BNN_MODEL_LAYERS;
    reply[1] = (uint8_t)(last_polluted ? BNN_FLAG_POLLUTED : 0);
    reply[2] = 0;
    reply[3] = 0;
    for (size_t i = 0; i < (size_t)bnn_model.n_layers; i++) {
        bnn_put_u32(reply + 4u + 4u * i, layer_ticks[i]);
    }
    send_reply(request, BNN_COUNTERS_REPLY);
}

static void answer_sample(const bnn_frame_t *request)
{
    uint32_t *words = reply_words + (REPLY_SHIFT + BNN_FRAME_HEADER) / 4u;
    uint8_t layer;
    uint64_t seed;
    uint32_t first;
    uint32_t count;
    uint32_t available;
    int status;

    if (request->length != BNN_SAMPLE_REQUEST) {
        refuse(request, BNN_ERROR_BAD_LENGTH, BNN_SAMPLE_REQUEST);
        return;
    }
    layer = request->payload[0];
    seed = bnn_get_u64(request->payload + 1);
    first = bnn_get_u32(request->payload + 9);
    count = bnn_get_u16(request->payload + 13);
    if (layer >= (unsigned)BNN_MODEL_LAYERS) {
        refuse(request, BNN_ERROR_BAD_ARGUMENT, 0);
        return;
    }
    available = bnn_model.layers[layer].sampled_words;
    if (first >= available) {
        refuse(request, BNN_ERROR_BAD_ARGUMENT, 9);
        return;
    }
    if (count < 1u || count > BNN_REPLY_MAX / 4u || count > available - first) {
        refuse(request, BNN_ERROR_BAD_ARGUMENT, 13);
        return;
    }
    if ((bnn_health_state() & BNN_STATE_CORRUPT) != 0) {
        refuse(request, BNN_ERROR_CORRUPT, 0);
        return;
    }
    cached = false;
    status = bnn_sample(&bnn_model, layer, seed, first, count, words);
    if (status != BNN_OK) {
        refuse(request, BNN_ERROR_MODEL, (uint32_t)-status);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        /* In place: the wire is little-endian whatever the core is. */
        bnn_put_u32(reply + 4u * i, words[i]);
    }
    send_reply(request, 4u * (size_t)count);
}

static void answer(const bnn_frame_t *request)
{
    /* Under steady load the main loop never waits. */
    bnn_port_alive();
    if (request->version != BNN_FRAME_VERSION) {
        refuse(request, BNN_ERROR_BAD_VERSION, BNN_FRAME_VERSION);
        return;
    }
    if (cached && request->sequence == cached_sequence && request->crc == cached_crc) {
        bnn_frame_send(reply_body, cached_size, bnn_port_write);
        return;
    }
    current_sequence = request->sequence;
    current_type = request->type;
    switch (request->type) {
    case BNN_TYPE_HELLO:
        answer_hello(request);
        break;
    case BNN_TYPE_INFER:
        answer_infer(request);
        break;
    case BNN_TYPE_COUNTERS:
        answer_counters(request);
        break;
    case BNN_TYPE_SAMPLE:
        answer_sample(request);
        break;
    case BNN_TYPE_CHECK:
        answer_check(request);
        break;
    case BNN_TYPE_LAST_FAULT:
        answer_last_fault(request);
        break;
    default:
        refuse(request, BNN_ERROR_UNKNOWN_TYPE, 0);
        break;
    }
    current_type = 0;
}

void bnn_server_init(void)
{
    bnn_decoder_init(&decoder, (uint8_t *)request_words, BNN_REQUEST_MAX + BNN_FRAME_OVERHEAD);
    bad_frames = 0;
    cached = false;
    inferred = false;
    last_polluted = false;
    current_sequence = 0;
    current_type = 0;
    bnn_health_init(reply);
    context_state = bnn_init(&context, &bnn_model, arena, (size_t)BNN_MODEL_ARENA_WORDS);
    if (context_state == BNN_OK) {
        context.hook = count_layer;
        context.user = NULL;
    }
}

bool bnn_server_poll(void)
{
    bnn_frame_t frame;
    int byte;

    if (bnn_port_overrun()) {
        send_error(BNN_ERROR_OVERRUN, 0, 0, 0);
    }
    byte = bnn_port_read();
    while (byte >= 0) {
        int result = bnn_decoder_push(&decoder, (uint8_t)byte, &frame);

        if (result == BNN_FRAME_READY) {
            answer(&frame);
        } else if (result == BNN_FRAME_BAD) {
            bad_frames++;
            send_error(BNN_ERROR_BAD_FRAME, 0, 0, bad_frames);
        }
        if (result != BNN_FRAME_MORE) {
            return true;
        }
        byte = bnn_port_read();
    }
    return false;
}

void bnn_server_run(void)
{
    bnn_server_init();
    for (;;) {
        while (bnn_server_poll()) {
        }
        bnn_port_wait();
    }
}

/*
 * Built in the reply buffer: nothing else is answered after a fault, and the
 * stack may be what broke.
 */
void bnn_app_fault(const uint32_t frame[8], uint32_t cfsr, uint32_t hfsr, uint32_t mmfar,
                   uint32_t bfar)
{
    size_t size;

    cached = false;
    for (size_t i = 0; i < 8u; i++) {
        bnn_put_u32(reply + 4u * i, frame[i]);
    }
    bnn_put_u32(reply + 32, cfsr);
    bnn_put_u32(reply + 36, hfsr);
    bnn_put_u32(reply + 40, mmfar);
    bnn_put_u32(reply + 44, bfar);
    bnn_put_u32(reply + 48, bnn_port_stack_free());
    reply[52] = current_type;
    reply[53] = 0;
    reply[54] = 0;
    reply[55] = 0;
    /* For the host after the next reset: this frame may find nobody listening. */
    bnn_health_keep_fault(reply);
    size = bnn_frame_seal(reply_body, BNN_TYPE_FAULT, current_sequence, (uint16_t)BNN_FAULT_BYTES);
    bnn_frame_send(reply_body, size, bnn_port_write);
}
