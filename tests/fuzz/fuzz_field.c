/*
 * The server in field mode: no request brings out a weight, a layer's count, a
 * checksum of the key, or takes a seed; answers are the runtime's for the seeds of
 * the counter that they tell; no value of it comes twice, and a repeated request
 * brings the same bytes again.
 */
#include "fuzz_field.h"

#include <string.h>

#include "bnn_field.h"
#include "bnn_persist.h"
#include "bnn_protocol.h"
#include "fuzz_check.h"

#define MARKS 40u

const uint8_t bnn_field_key[BNN_SIPHASH_KEY_BYTES] = {9, 8, 7, 6, 5, 4, 3, 2, 1};

static uint32_t marks_end;
static bool worn;
static bool damaged;
static bnn_ctx_t *runtime;
static uint64_t free_from; /* the first value that was not given yet */

/* The last INFER that was answered: its number and CRC, and the answer. */
static bool kept;
static uint16_t kept_sequence;
static uint8_t kept_crc[4];
static uint8_t kept_answer[BNN_REPLY_MAX];
static size_t kept_length;

uint32_t bnn_persist_marks(void)
{
    return MARKS;
}

uint32_t bnn_persist_end(void)
{
    return marks_end;
}

bool bnn_persist_set(uint32_t mark)
{
    FUZZ_CHECK(mark < MARKS, "mark %u of %u", (unsigned)mark, MARKS);
    if (worn || mark % 7u == 5u) {
        return false;
    }
    marks_end = mark + 1u;
    return true;
}

void field_start(size_t kind, bool corrupt, bnn_ctx_t *twin)
{
    marks_end = kind == 9u ? MARKS : kind == 10u ? MARKS - 3u : (uint32_t)kind;
    worn = kind == 11u;
    damaged = corrupt;
    runtime = twin;
    free_from = 0;
    kept = false;
}

static uint64_t get(const uint8_t *at, size_t size)
{
    uint64_t value = 0;

    for (size_t i = size; i > 0; i--) {
        value = value << 8 | at[i - 1u];
    }
    return value;
}

static void check_error(const wire_frame_t *answer, uint8_t code)
{
    FUZZ_CHECK(answer->type == BNN_TYPE_ERROR && answer->payload[0] == code,
               "type %u, code %u instead of error %u", (unsigned)answer->type,
               (unsigned)answer->payload[0], (unsigned)code);
}

static void check_draws(const wire_frame_t *request, const wire_frame_t *answer)
{
    static uint32_t words[(BNN_MODEL_INPUT_BYTES + 3u) / 4u];
    const size_t draws = request->payload[1];
    const uint64_t first = get(answer->payload + 4, 8);
    const uint8_t *at = answer->payload + BNN_INFER_HEAD;

    FUZZ_CHECK(answer->length == BNN_INFER_HEAD + draws * BNN_DRAW_BYTES, "%u bytes",
               (unsigned)answer->length);
    FUZZ_CHECK(first >= free_from, "a value of the counter for the second time");
    free_from = first + draws;
    FUZZ_CHECK(free_from <= (uint64_t)marks_end * BNN_FIELD_BLOCK, "a value that no mark covers");
    memcpy(words, request->payload + 2, BNN_MODEL_INPUT_BYTES);
    for (size_t i = 0; i < draws; i++) {
        FUZZ_CHECK(bnn_infer(runtime, (const uint8_t *)words, BNN_MODEL_INPUT_BYTES,
                             bnn_field_seed(first + i)) == BNN_OK, "a refused draw");
        for (unsigned c = 0; c < BNN_MODEL_CLASSES; c++) {
            uint64_t mask = BNN_MODEL_LOGIT_BYTES == 4 ? 0xFFFFFFFFu : UINT64_MAX;

            FUZZ_CHECK(get(at + 4u + c * BNN_MODEL_LOGIT_BYTES, BNN_MODEL_LOGIT_BYTES) ==
                           ((uint64_t)bnn_logit(runtime, c) & mask),
                       "logit %u of draw %u is not the runtime's", c, (unsigned)i);
        }
        at += BNN_DRAW_BYTES;
    }
}

static void check_infer(const wire_frame_t *request, const wire_frame_t *answer)
{
    const uint8_t *crc = request->payload + request->length;
    const size_t draws = request->length < 2u ? 0 : request->payload[1];
    const size_t plain = 2u + BNN_MODEL_INPUT_BYTES;
    const bool counted = request->length >= 2u && request->payload[0] == 0 && draws >= 1u &&
                         draws <= BNN_MAX_SEEDS;

    if (kept && request->sequence == kept_sequence && memcmp(crc, kept_crc, 4) == 0) {
        FUZZ_CHECK(answer->type == (BNN_TYPE_INFER | BNN_TYPE_REPLY) &&
                       answer->length == kept_length &&
                       memcmp(answer->payload, kept_answer, kept_length) == 0,
                   "another answer to a repeated request");
        return;
    }
    if (!counted || request->length != plain) {
        FUZZ_CHECK(answer->type == BNN_TYPE_ERROR, "an INFER that should have been refused");
        if (counted && request->length == plain + 8u * draws) {
            check_error(answer, BNN_ERROR_FIELD);
        }
        return;
    }
    if (damaged) {
        check_error(answer, BNN_ERROR_CORRUPT);
        return;
    }
    if (answer->type == BNN_TYPE_ERROR) {
        check_error(answer, BNN_ERROR_COUNTER);
        FUZZ_CHECK(worn || marks_end + 2u >= MARKS, "no counter where there are marks");
        kept = false;
        return;
    }
    check_draws(request, answer);
    kept = true;
    kept_sequence = request->sequence;
    memcpy(kept_crc, crc, 4);
    memcpy(kept_answer, answer->payload, answer->length);
    kept_length = answer->length;
}

bool field_check(const wire_frame_t *request, const wire_frame_t *answer)
{
    switch (request->type) {
    case BNN_TYPE_INFER:
        check_infer(request, answer);
        return true;
    case BNN_TYPE_CHECK:
        check_error(answer, request->length == 0 ? BNN_ERROR_FIELD : BNN_ERROR_BAD_LENGTH);
        return true;
    case BNN_TYPE_COUNTERS:
    case BNN_TYPE_SAMPLE:
        check_error(answer, BNN_ERROR_FIELD);
        return true;
    default:
        return false;
    }
}
