/*
 * The C frame codec as a filter, for the tests.  A command is a letter, a
 * 32-bit size and that many bytes:
 *
 *   'E'  type, sequence:2, payload -> what bnn_frame_send() puts on the wire
 *   'D'  wire data, pushed into a fresh decoder -> for every frame 'F', version,
 *        type, sequence:2, length:2, payload; for every bad one 'B'
 *
 * An answer is its 32-bit size and its bytes.  All integers are little-endian.
 */
#include "bnn_frame.h"

#include <stdio.h>
#include <stdlib.h>

#define MOST 70000u
#define CAPACITY 4000u /* of the decoder: the tests send longer ones too */

static uint8_t answer[4u * MOST];
static size_t answer_size;

static void emit(const uint8_t *data, size_t size)
{
    if (size > sizeof answer - answer_size) {
        exit(3);
    }
    for (size_t i = 0; i < size; i++) {
        answer[answer_size++] = data[i];
    }
}

static void encode(const uint8_t *data, size_t size)
{
    static uint8_t body[MOST];
    size_t length = size - 3u;

    for (size_t i = 0; i < length; i++) {
        body[BNN_FRAME_HEADER + i] = data[3u + i];
    }
    bnn_frame_send(body, bnn_frame_seal(body, data[0], bnn_get_u16(data + 1), (uint16_t)length), emit);
}

static void decode(const uint8_t *data, size_t size)
{
    /* From the heap and of the exact size, so that ASan sees one byte too many. */
    uint8_t *body = malloc(CAPACITY);
    bnn_decoder_t decoder;
    bnn_frame_t frame;

    if (body == NULL) {
        exit(3);
    }
    bnn_decoder_init(&decoder, body, CAPACITY);
    for (size_t i = 0; i < size; i++) {
        int result = bnn_decoder_push(&decoder, data[i], &frame);

        if (result == BNN_FRAME_READY) {
            uint8_t head[7] = {'F', frame.version, frame.type};

            bnn_put_u16(head + 3, frame.sequence);
            bnn_put_u16(head + 5, frame.length);
            emit(head, sizeof head);
            emit(frame.payload, frame.length);
        } else if (result == BNN_FRAME_BAD) {
            emit((const uint8_t *)"B", 1);
        }
    }
    free(body);
}

int main(void)
{
    static uint8_t data[MOST];
    uint8_t head[5];

    while (fread(head, 1, sizeof head, stdin) == sizeof head) {
        uint8_t size_bytes[4];
        size_t size = bnn_get_u32(head + 1);

        if (size > sizeof data || (head[0] == 'E' && size < 3u) ||
            fread(data, 1, size, stdin) != size) {
            return 2;
        }
        answer_size = 0;
        if (head[0] == 'E') {
            encode(data, size);
        } else {
            decode(data, size);
        }
        bnn_put_u32(size_bytes, (uint32_t)answer_size);
        fwrite(size_bytes, 1, sizeof size_bytes, stdout);
        fwrite(answer, 1, answer_size, stdout);
        fflush(stdout);
    }
    return 0;
}
