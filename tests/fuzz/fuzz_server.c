/*
 * A wire into the protocol server, with its answers checked one by one:
 *
 *   - every sound frame is answered by one frame with its number, every bad one
 *     by BAD_FRAME, and nothing else is ever sent;
 *   - answers are sound and never longer than BNN_REPLY_MAX;
 *   - INFER and SAMPLE answer what the runtime says when asked directly, and a
 *     firmware that is not what was built answers neither;
 *   - the line is at another baud only where BAUD was answered so, and garbage
 *     brings it back;
 *   - whatever came before, HELLO is answered.
 *
 * In field mode (-DBNN_FIELD) fuzz_field.c says what is answered instead.
 *
 * The length of an input chooses the port's state: see start().
 */
#include "bnn_health.h"
#include "bnn_port.h"
#include "bnn_protocol.h"
#include "bnn_server.h"
#include "fuzz_check.h"
#ifdef BNN_FIELD
#include "fuzz_field.h"
#endif
#include "fuzz_port.h"
#include "fuzz_wire.h"

#include <string.h>

#define MOST 8192u
#define SAMPLE_MOST 1024u

static bool corrupt;
static bnn_ctx_t twin;
static uint32_t twin_arena[BNN_MODEL_ARENA_WORDS];

/* The last request that was answered, decoded. */
static uint8_t kept[BNN_REQUEST_MAX + BNN_FRAME_OVERHEAD];
static size_t kept_size;

/* The answers to one poll, decoded. */
static uint8_t bodies[FUZZ_SENT_MOST];
static wire_frame_t answers[4];
static size_t answer_count;

static void take_answers(void)
{
    size_t size;
    const uint8_t *wire = fuzz_port_sent(&size);
    size_t start = 0;
    size_t kept = 0;

    answer_count = 0;
    FUZZ_CHECK(size == 0 || wire[size - 1u] == 0, "an answer that does not end");
    for (size_t i = 0; i < size; i++) {
        if (wire[i] != 0) {
            continue;
        }
        if (i > start) {
            size_t decoded = wire_decode(wire + start, i - start, bodies + kept);

            FUZZ_CHECK(answer_count < 4u, "more than four answers at once");
            FUZZ_CHECK(wire_parse(bodies + kept, decoded, &answers[answer_count]),
                       "an answer that is no sound frame");
            FUZZ_CHECK(answers[answer_count].length <= BNN_REPLY_MAX, "an answer of %u bytes",
                       (unsigned)answers[answer_count].length);
            kept += decoded;
            answer_count++;
        }
        start = i + 1u;
    }
}

static void check_error(const wire_frame_t *answer, uint8_t code, uint16_t sequence)
{
    FUZZ_CHECK(answer->type == BNN_TYPE_ERROR && answer->length == 4 &&
                   answer->payload[0] == code && answer->sequence == sequence,
               "type %u, code %u instead of error %u", (unsigned)answer->type,
               (unsigned)answer->payload[0], (unsigned)code);
}

static uint64_t get(const uint8_t *at, size_t size)
{
    uint64_t value = 0;

    for (size_t i = size; i > 0; i--) {
        value = value << 8 | at[i - 1u];
    }
    return value;
}

/* What the answer to a proper INFER must be, from inferences of our own. */
static void check_infer(const wire_frame_t *request, const wire_frame_t *answer)
{
    static uint32_t words[(BNN_MODEL_INPUT_BYTES + 3u) / 4u];
    size_t seeds = request->length < 2u ? 0 : request->payload[1];
    bool proper = request->length >= 2u && request->payload[0] == 0 && seeds >= 1u &&
                  seeds <= BNN_MAX_SEEDS &&
                  request->length == 2u + BNN_MODEL_INPUT_BYTES + 8u * seeds;
    const uint8_t *at = answer->payload + 4;

    if (!proper || corrupt) {
        FUZZ_CHECK(answer->type == BNN_TYPE_ERROR, "an INFER that should have been refused");
        if (proper) {
            check_error(answer, BNN_ERROR_CORRUPT, request->sequence);
        }
        return;
    }
    memcpy(words, request->payload + 2, BNN_MODEL_INPUT_BYTES);
    for (size_t i = 0; i < seeds; i++) {
        uint64_t seed = get(request->payload + 2u + BNN_MODEL_INPUT_BYTES + 8u * i, 8);
        int status = bnn_infer(&twin, (const uint8_t *)words, BNN_MODEL_INPUT_BYTES, seed);

        if (status != BNN_OK) {
            /* One seed that the runtime refuses, and there is no answer to the others. */
            check_error(answer, BNN_ERROR_MODEL, request->sequence);
            return;
        }
        if (answer->type == BNN_TYPE_ERROR && i + 1u < seeds) {
            continue;
        }
        FUZZ_CHECK(answer->type == (BNN_TYPE_INFER | BNN_TYPE_REPLY) &&
                       answer->length == 4u + seeds * BNN_DRAW_BYTES,
                   "INFER was answered by type %u", (unsigned)answer->type);
        for (unsigned c = 0; c + FUZZ_MODEL_IS_FAKE < BNN_MODEL_CLASSES; c++) {
            uint64_t logit = get(at + 4u + c * BNN_MODEL_LOGIT_BYTES, BNN_MODEL_LOGIT_BYTES);
            uint64_t expected = (uint64_t)bnn_logit(&twin, c);

            if (BNN_MODEL_LOGIT_BYTES == 4) {
                expected &= 0xFFFFFFFFu;
            }
            FUZZ_CHECK(logit == expected, "logit %u of seed %u is not the runtime's", c,
                       (unsigned)i);
        }
        at += BNN_DRAW_BYTES;
    }
}

static void check_sample(const wire_frame_t *request, const wire_frame_t *answer)
{
    static uint32_t words[SAMPLE_MOST];
    uint32_t count;

    if (answer->type == BNN_TYPE_ERROR) {
        return;
    }
    FUZZ_CHECK(!corrupt && request->length == BNN_SAMPLE_REQUEST, "a SAMPLE to be refused");
    count = (uint32_t)get(request->payload + 13, 2);
    FUZZ_CHECK(count <= SAMPLE_MOST && answer->length == 4u * count, "%u words of %u",
               (unsigned)answer->length / 4u, (unsigned)count);
    FUZZ_CHECK(bnn_sample(&bnn_model, request->payload[0], get(request->payload + 1, 8),
                          (uint32_t)get(request->payload + 9, 4), count, words) == BNN_OK,
               "words that the runtime does not give");
    for (uint32_t i = 0; i < count; i++) {
        FUZZ_CHECK(get(answer->payload + 4u * i, 4) == words[i], "word %u", (unsigned)i);
    }
}

static void check_hello(const wire_frame_t *answer)
{
    FUZZ_CHECK(answer->type == (BNN_TYPE_HELLO | BNN_TYPE_REPLY) &&
                   answer->length > BNN_HELLO_FIXED && answer->length <= BNN_HELLO_REPLY_MAX &&
                   get(answer->payload + 12, 2) == BNN_REQUEST_MAX &&
                   get(answer->payload + 14, 2) == BNN_REPLY_MAX &&
                   memcmp(answer->payload + 32, bnn_model.sha256, 32) == 0,
               "no HELLO");
}

static void check_baud(const wire_frame_t *request, const wire_frame_t *answer)
{
    uint64_t asked;
    uint64_t made;

    if (answer->type == BNN_TYPE_ERROR) {
        return;
    }
    FUZZ_CHECK(request->length >= 4u && answer->length == request->length &&
                   memcmp(answer->payload + 4, request->payload + 4, request->length - 4u) == 0,
               "the pattern of BAUD comes back as another one");
    asked = get(request->payload, 4);
    made = get(answer->payload, 4);
    FUZZ_CHECK(made == bnn_port_baud((uint32_t)asked), "a baud of %u", (unsigned)made);
    if (asked != 0) {
        FUZZ_CHECK(fuzz_port_baud() == asked && 50u * (asked - made) <= asked,
                   "a baud of %u for one of %u", (unsigned)made, (unsigned)asked);
    }
}

static void check_answer(const wire_frame_t *request, const wire_frame_t *answer)
{
    FUZZ_CHECK(answer->sequence == request->sequence, "an answer to another request");
    FUZZ_CHECK(answer->version == BNN_FRAME_VERSION, "version %u", (unsigned)answer->version);
    if (answer->type == BNN_TYPE_ERROR) {
        FUZZ_CHECK(answer->length == 4u && answer->payload[0] > BNN_ERROR_OVERRUN &&
                       answer->payload[1] == request->type,
                   "an ERROR with code %u", (unsigned)answer->payload[0]);
    } else {
        FUZZ_CHECK((request->type & BNN_TYPE_REPLY) == 0 &&
                       answer->type == (request->type | BNN_TYPE_REPLY),
                   "type %u answered by %u", (unsigned)request->type, (unsigned)answer->type);
    }
    if (request->version != BNN_FRAME_VERSION) {
        return;
    }
#ifdef BNN_FIELD
    if (field_check(request, answer)) {
        return;
    }
#endif
    if (request->type == BNN_TYPE_HELLO && request->length == 0) {
        check_hello(answer);
    } else if (request->type == BNN_TYPE_INFER) {
        check_infer(request, answer);
    } else if (request->type == BNN_TYPE_SAMPLE) {
        check_sample(request, answer);
    } else if (request->type == BNN_TYPE_BAUD) {
        check_baud(request, answer);
    }
}

/*
 * Whether the server takes a request for a repetition of the one that it answered
 * last, though it is another: it looks at sequence number and CRC, and two requests
 * in one frame's length can share both (a payload with whole frames in it, say).
 * No host meets that: it counts its requests.
 */
static bool collides(const uint8_t *body, size_t size)
{
    return kept_size >= WIRE_OVERHEAD && memcmp(body + 2, kept + 2, 2) == 0 &&
           memcmp(body + size - 4u, kept + kept_size - 4u, 4) == 0 &&
           (size != kept_size || memcmp(body, kept, size) != 0);
}

/* After a crash: the FAULT frame, silence, and a reset with RAM as it was. */
static void after_fault(void)
{
    take_answers();
    if (answer_count == 1) {
        FUZZ_CHECK(answers[0].type == BNN_TYPE_FAULT && answers[0].length == BNN_FAULT_BYTES,
                   "type %u instead of FAULT", (unsigned)answers[0].type);
    } else {
        FUZZ_CHECK(answer_count == 0, "a firmware without power that sends");
    }
    /* A reset takes the UART back, too. */
    bnn_port_set_baud(0);
    bnn_server_init();
}

/* One poll; false once nothing is left to do. */
static bool poll(const uint8_t *data, size_t *start, bool *overrun)
{
    static uint8_t body[2u * MOST];
    wire_frame_t request;
    size_t first = 0;
    size_t end;
    bool more;

    if (setjmp(fuzz_reset) != 0) {
        after_fault();
        *start = fuzz_port_taken();
        return true;
    }
    more = bnn_server_poll();
    end = fuzz_port_taken();
    take_answers();
    if (*overrun) {
        FUZZ_CHECK(answer_count > 0, "no word of lost bytes");
        check_error(&answers[0], BNN_ERROR_OVERRUN, 0);
        *overrun = false;
        first = 1;
    }
    /* Zeros alone are nothing; what is between the last two is what was answered. */
    while (*start < end && data[*start] == 0) {
        (*start)++;
    }
    if (end > *start && data[end - 1u] == 0) {
        size_t size = wire_decode(data + *start, end - 1u - *start, body);

        FUZZ_CHECK(answer_count == first + 1u, "%u answers to one frame",
                   (unsigned)(answer_count - first));
        if (size <= BNN_REQUEST_MAX + BNN_FRAME_OVERHEAD && wire_parse(body, size, &request)) {
            if (!collides(body, size)) {
                check_answer(&request, &answers[first]);
                if (answers[first].type != BNN_TYPE_ERROR) {
                    memcpy(kept, body, size);
                    kept_size = size;
                }
            }
        } else {
            check_error(&answers[first], BNN_ERROR_BAD_FRAME, 0);
        }
        FUZZ_CHECK(more, "a frame was answered, and the server says that nothing came");
        *start = end;
    } else {
        FUZZ_CHECK(answer_count == first, "an answer to nothing");
    }
    return more || !fuzz_port_empty();
}

/* An input's length chooses what kind of board it comes to. */
static void start(const uint8_t *data, size_t size)
{
    size_t kind = size % 16u;

    corrupt = kind == 6u;
    kept_size = 0;
    fuzz_port_start(data, size, kind == 5u, corrupt, (size & 1u) != 0, kind == 3u ? 0 : 180000000u);
    if (kind == 7u) {
        /* Kept memory after a loss of power: any bytes. */
        memcpy(bnn_port_kept, data,
               size < sizeof bnn_port_kept ? size : sizeof bnn_port_kept);
    }
    FUZZ_CHECK(bnn_init(&twin, &bnn_model, twin_arena, BNN_MODEL_ARENA_WORDS) == BNN_OK, "init");
#ifdef BNN_FIELD
    field_start(kind, corrupt, &twin);
#endif
    bnn_server_init();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t hello[WIRE_OVERHEAD] = {BNN_FRAME_VERSION, BNN_TYPE_HELLO, 0x5A, 0xA5};
    static const uint8_t zeros[64];
    uint8_t body[sizeof hello];
    uint8_t wire[1u + sizeof hello + 3u];
    size_t begin = 0;
    size_t wire_size;
    bool overrun = size % 16u == 5u;

    if (size > MOST) {
        return 0;
    }
    start(data, size);
    while (poll(data, &begin, &overrun)) {
    }
    /* Zeros end whatever was left open, one more bad frame; so many of them are another baud. */
    fuzz_port_more(zeros, sizeof zeros);
    while (bnn_server_poll()) {
    }
    (void)bnn_server_poll();
    take_answers();
    FUZZ_CHECK(answer_count <= 1, "%u answers to zeros", (unsigned)answer_count);
    FUZZ_CHECK(fuzz_port_baud() == 0, "still at a baud of %u", (unsigned)fuzz_port_baud());
    memcpy(body, hello, sizeof hello);
    wire_seal(body, sizeof body);
    wire_size = wire_encode(body, sizeof body, wire);
    fuzz_port_more(wire, wire_size);
    while (bnn_server_poll()) {
    }
    take_answers();
    FUZZ_CHECK(answer_count == 1 && answers[0].sequence == 0xA55A, "no answer to HELLO");
    check_hello(&answers[0]);
    return 0;
}
