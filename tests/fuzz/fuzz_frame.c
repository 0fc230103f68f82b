/*
 * Bytes into the firmware's frame decoder, which must agree with a second one
 * about every chunk: a frame is reported exactly where length and CRC are right
 * and the buffer suffices.  What was decoded is sent and decoded again.
 *
 * The first byte chooses the size of the decoder's buffer, which is allocated
 * with no byte more, so that the sanitizer sees the first one too many.
 */
#include "bnn_frame.h"
#include "fuzz_check.h"
#include "fuzz_wire.h"

#include <string.h>

#define MOST 8192u

static uint8_t sent[2u * MOST];
static size_t sent_size;

static void keep(const uint8_t *data, size_t size)
{
    FUZZ_CHECK(sent_size + size <= sizeof sent, "more was sent than a frame takes");
    memcpy(sent + sent_size, data, size);
    sent_size += size;
}

/* What was received goes out as the same body, in a coding that reads back. */
static void check_sending(const bnn_frame_t *frame)
{
    uint8_t *body = malloc(frame->length + BNN_FRAME_OVERHEAD);
    uint8_t *again = malloc(2u * MOST);
    size_t size;
    size_t decoded;

    FUZZ_CHECK(body != NULL && again != NULL, "no memory");
    memcpy(body + BNN_FRAME_HEADER, frame->payload, frame->length);
    size = bnn_frame_seal(body, frame->type, frame->sequence, frame->length);
    sent_size = 0;
    bnn_frame_send(body, size, keep);
    FUZZ_CHECK(sent_size >= 3 && sent_size <= BNN_FRAME_ENCODED(size), "%zu bytes sent", sent_size);
    FUZZ_CHECK(sent[0] == 0 && sent[sent_size - 1u] == 0, "no delimiters");
    FUZZ_CHECK(memchr(sent + 1, 0, sent_size - 2u) == NULL, "a zero inside a frame");
    decoded = wire_decode(sent + 1, sent_size - 2u, again);
    FUZZ_CHECK(decoded == size && memcmp(again, body, size) == 0, "another frame was sent");
    /* The two encoders agree to the byte. */
    FUZZ_CHECK(wire_encode(body, size, again) == sent_size && memcmp(again, sent, sent_size) == 0,
               "coded in another way");
    free(body);
    free(again);
}

static void check_chunk(const uint8_t *chunk, size_t size, size_t capacity, int result,
                        const bnn_frame_t *frame, uint8_t *scratch)
{
    wire_frame_t expected;
    size_t decoded = wire_decode(chunk, size, scratch);
    bool sound = decoded <= capacity && wire_parse(scratch, decoded, &expected);

    if (size == 0) {
        FUZZ_CHECK(result == BNN_FRAME_MORE, "%d for two delimiters in a row", result);
        return;
    }
    FUZZ_CHECK(result == (sound ? BNN_FRAME_READY : BNN_FRAME_BAD), "%d for a chunk that is %s",
               result, sound ? "sound" : "not sound");
    if (sound) {
        FUZZ_CHECK(frame->version == expected.version && frame->type == expected.type &&
                       frame->sequence == expected.sequence && frame->length == expected.length &&
                       memcmp(frame->payload, expected.payload, expected.length) == 0,
                   "another frame than was sent");
        check_sending(frame);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bnn_decoder_t decoder;
    bnn_frame_t frame;
    uint8_t *body;
    uint8_t *scratch;
    size_t capacity;
    size_t start = 1;

    if (size < 1 || size > MOST) {
        return 0;
    }
    capacity = 10u + 8u * (size_t)data[0];
    body = malloc(capacity);
    scratch = malloc(size);
    FUZZ_CHECK(body != NULL && scratch != NULL, "no memory");
    bnn_decoder_init(&decoder, body, capacity);
    for (size_t i = 1; i < size; i++) {
        int result = bnn_decoder_push(&decoder, data[i], &frame);

        if (data[i] == 0) {
            check_chunk(data + start, i - start, capacity, result, &frame, scratch);
            start = i + 1u;
        } else {
            FUZZ_CHECK(result == BNN_FRAME_MORE, "%d within a frame", result);
        }
    }
    free(scratch);
    free(body);
    return 0;
}
