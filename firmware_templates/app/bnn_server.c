#include "bnn_small.h" /* before any code */

#include "bnn_server.h"
#include "bnn_server_internal.h"

#include "bnn_health.h"
#include "bnn_port.h"

#define WORDS(bytes) (((bytes) + 3u) / 4u)

/*
 * Kernels read the image and write sampled words as 32-bit units.  A request
 * starts at the beginning of its buffer: 6 bytes of header and 2 of INFER
 * fields put the image at offset 8.  A reply starts two bytes in, which puts
 * its payload, and so the sampled words, at offset 8 as well.
 */
#define REPLY_SHIFT 2u
#define REPLY_WORD ((REPLY_SHIFT + BNN_FRAME_HEADER) / 4u)

static uint32_t request_words[WORDS(BNN_REQUEST_MAX + BNN_FRAME_OVERHEAD)];
static uint32_t reply_words[WORDS(REPLY_SHIFT + BNN_REPLY_MAX + BNN_FRAME_OVERHEAD)];
static uint8_t *const reply_body = (uint8_t *)reply_words + REPLY_SHIFT;
static uint8_t *const reply = (uint8_t *)(reply_words + REPLY_WORD);

uint32_t bnn_delimiters;

static struct {
    bnn_decoder_t decoder;
    uint16_t bad_frames;

    /*
     * The reply buffer doubles as the cache of the last answer: a host that lost
     * the reply asks again with the same sequence number and the same bytes, and
     * gets it without a second inference.
     */
    bool cached;
    uint16_t cached_sequence;
    uint32_t cached_crc;
    size_t cached_size;

    /* Read by bnn_app_fault(), which interrupts whatever was going on. */
    volatile uint16_t current_sequence;
    volatile uint8_t current_type;
} state;

uint32_t *bnn_begin_reply(void)
{
    state.cached = false;
    return reply_words + REPLY_WORD;
}

void bnn_send_reply(const bnn_frame_t *request, size_t length)
{
    state.cached_size = bnn_frame_seal(reply_body, (uint8_t)(request->type | BNN_TYPE_REPLY),
                                 request->sequence, (uint16_t)length);
    state.cached_sequence = request->sequence;
    state.cached_crc = request->crc;
    state.cached = true;
    bnn_frame_send(reply_body, state.cached_size, bnn_port_write);
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

void bnn_refuse(const bnn_frame_t *request, uint8_t code, uint32_t detail)
{
    send_error(code, request->type, request->sequence, detail);
}

bool bnn_check_empty(const bnn_frame_t *request)
{
    if (request->length != 0) {
        bnn_refuse(request, BNN_ERROR_BAD_LENGTH, 0);
    }
    return request->length == 0;
}

bool bnn_check_sound(const bnn_frame_t *request)
{
    const bool corrupt = (bnn_health_state() & BNN_STATE_CORRUPT) != 0;

    if (corrupt) {
        bnn_refuse(request, BNN_ERROR_CORRUPT, 0);
    }
    return !corrupt;
}

static void answer(const bnn_frame_t *request)
{
    /* Under steady load the main loop never waits. */
    bnn_port_alive();
    bnn_baud_heard();
    if (request->version != BNN_FRAME_VERSION) {
        bnn_refuse(request, BNN_ERROR_BAD_VERSION, BNN_FRAME_VERSION);
        return;
    }
    if (state.cached && request->sequence == state.cached_sequence && request->crc == state.cached_crc) {
        bnn_frame_send(reply_body, state.cached_size, bnn_port_write);
        return;
    }
    state.current_sequence = request->sequence;
    state.current_type = request->type;
    switch (request->type) {
    case BNN_TYPE_HELLO:
        bnn_answer_hello(request);
        break;
    case BNN_TYPE_INFER:
        bnn_answer_infer(request);
        break;
    case BNN_TYPE_COUNTERS:
        bnn_answer_counters(request);
        break;
    case BNN_TYPE_SAMPLE:
        bnn_answer_sample(request);
        break;
    case BNN_TYPE_CHECK:
        bnn_answer_check(request);
        break;
    case BNN_TYPE_LAST_FAULT:
        bnn_answer_last_fault(request);
        break;
    case BNN_TYPE_BAUD:
        bnn_answer_baud(request);
        break;
    default:
        bnn_refuse(request, BNN_ERROR_UNKNOWN_TYPE, 0);
        break;
    }
    state.current_type = 0;
}

void bnn_server_init(void)
{
    bnn_decoder_init(&state.decoder, (uint8_t *)request_words, BNN_REQUEST_MAX + BNN_FRAME_OVERHEAD);
    state.bad_frames = 0;
    state.cached = false;
    state.current_sequence = 0;
    state.current_type = 0;
    bnn_baud_init();
    bnn_health_init(reply);
    bnn_infer_reset();
}

bool bnn_server_poll(void)
{
    bnn_frame_t frame;
    int byte;

    if (bnn_port_overrun()) {
        send_error(BNN_ERROR_OVERRUN, 0, 0, 0);
    }
    bnn_baud_watch();
    byte = bnn_port_read();
    while (byte >= 0) {
        int result = bnn_decoder_push(&state.decoder, (uint8_t)byte, &frame);

        if (byte == 0) {
            bnn_delimiters++;
        }
        if (result == BNN_FRAME_READY) {
            answer(&frame);
        } else if (byte == 0) {
            /* Before the report, which is then heard. */
            bnn_baud_watch();
        }
        if (result == BNN_FRAME_BAD) {
            state.bad_frames++;
            send_error(BNN_ERROR_BAD_FRAME, 0, 0, state.bad_frames);
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

    state.cached = false;
#ifdef BNN_FIELD
    /* Registers and addresses may be made of the key or of drawn weights; where it was is code. */
    for (size_t i = 0; i < 12u; i++) {
        bnn_put_u32(reply + 4u * i, i >= 5u && i < 8u ? frame[i] : 0u);
    }
    bnn_put_u32(reply + 32, cfsr);
    bnn_put_u32(reply + 36, hfsr);
    (void)mmfar;
    (void)bfar;
#else
    for (size_t i = 0; i < 8u; i++) {
        bnn_put_u32(reply + 4u * i, frame[i]);
    }
    bnn_put_u32(reply + 32, cfsr);
    bnn_put_u32(reply + 36, hfsr);
    bnn_put_u32(reply + 40, mmfar);
    bnn_put_u32(reply + 44, bfar);
#endif
    bnn_put_u32(reply + 48, bnn_port_stack_free());
    reply[52] = state.current_type;
    reply[53] = 0;
    reply[54] = 0;
    reply[55] = 0;
    /* For the host after the next reset: this frame may find nobody listening. */
    bnn_health_keep_fault(reply);
    size = bnn_frame_seal(reply_body, BNN_TYPE_FAULT, state.current_sequence, (uint16_t)BNN_FAULT_BYTES);
    bnn_frame_send(reply_body, size, bnn_port_write);
}
