/*
 * Numbers of the serial protocol, and the buffer sizes that follow from the
 * model.  docs/SPEC.md explains each of them.
 */
#ifndef BNN_PROTOCOL_H
#define BNN_PROTOCOL_H

#include "bnn_frame.h"
#include "bnn_model.h"

#define BNN_FIRMWARE_MAJOR 0u
#define BNN_FIRMWARE_MINOR 1u
#define BNN_FIRMWARE_PATCH 0u

enum {
    BNN_TYPE_HELLO = 0x01,
    BNN_TYPE_INFER = 0x02,
    BNN_TYPE_COUNTERS = 0x03,
    BNN_TYPE_SAMPLE = 0x04,
    BNN_TYPE_CHECK = 0x05,
    BNN_TYPE_LAST_FAULT = 0x06,
    BNN_TYPE_BAUD = 0x07,
    BNN_TYPE_REPLY = 0x80, /* or-ed to the type of the request */
    BNN_TYPE_FAULT = 0xFE,
    BNN_TYPE_ERROR = 0xFF
};

enum {
    BNN_ERROR_BAD_FRAME = 1,    /* detail: bad frames so far, modulo 65536 */
    BNN_ERROR_OVERRUN = 2,      /* received bytes were lost */
    BNN_ERROR_BAD_VERSION = 3,  /* detail: the version spoken here */
    BNN_ERROR_UNKNOWN_TYPE = 4, /* no such request */
    BNN_ERROR_BAD_LENGTH = 5,   /* detail: the payload length expected */
    BNN_ERROR_BAD_ARGUMENT = 6, /* detail: payload offset of the field */
    BNN_ERROR_MODEL = 7,        /* detail: the runtime's error code, negated */
    BNN_ERROR_NOT_READY = 8,    /* counters before the first inference; no fault is kept */
    BNN_ERROR_CORRUPT = 9,      /* the firmware in flash is not what was built */
    BNN_ERROR_FIELD = 10,       /* field mode tells no such thing */
    BNN_ERROR_COUNTER = 11      /* field mode: its counter cannot be kept */
};

/*
 * Field mode (docs/FIELD.md) is compiled in by -DBNN_FIELD, for every file: it
 * has another bnn_answer_infer(), and a first value of its counter in replies.
 */
#ifdef BNN_FIELD
#define BNN_MODE 1u
#define BNN_INFER_HEAD 12u
#else
#define BNN_MODE 0u
#define BNN_INFER_HEAD 4u
#endif

enum { BNN_FLAG_POLLUTED = 1 };

/* The state that HELLO ends with. */
enum {
    BNN_STATE_CHECKED = 1, /* the image has a checksum, which was computed at the start */
    BNN_STATE_CORRUPT = 2, /* and is another one */
    BNN_STATE_FAULTED = 4  /* an earlier run ended in a fault, which LAST_FAULT tells */
};

#define BNN_TEXT_MAX 31u /* longer names are cut */

/* One INFER reply carries as many draws as fit this budget, twenty at most. */
#define BNN_REPLY_BUDGET 2048u
#define BNN_MOST_SEEDS 20u
#define BNN_DRAW_BYTES (4u + (unsigned)(BNN_MODEL_CLASSES) * (unsigned)(BNN_MODEL_LOGIT_BYTES))
#define BNN_SEEDS_THAT_FIT ((BNN_REPLY_BUDGET - 4u) / BNN_DRAW_BYTES)
#define BNN_MAX_SEEDS                                              \
    (BNN_SEEDS_THAT_FIT >= BNN_MOST_SEEDS ? BNN_MOST_SEEDS         \
     : BNN_SEEDS_THAT_FIT >= 1u           ? BNN_SEEDS_THAT_FIT     \
                                          : 1u)

#define BNN_MAX_OF(a, b) ((a) > (b) ? (a) : (b))

/*
 * Requests: SAMPLE takes 15 bytes, INFER an image and seeds, BAUD a number and
 * what else there is room for, the others nothing.
 */
#define BNN_SAMPLE_REQUEST 15u
#define BNN_INFER_REQUEST_MAX (2u + (unsigned)(BNN_MODEL_INPUT_BYTES) + 8u * BNN_MAX_SEEDS)
#define BNN_REQUEST_MAX BNN_MAX_OF(BNN_INFER_REQUEST_MAX, BNN_SAMPLE_REQUEST)

/* Replies.  SAMPLE fills whatever the largest of the others needs. */
#define BNN_FAULT_BYTES 56u
#define BNN_HELLO_FIXED 64u
#define BNN_HELLO_STATE 3u
#define BNN_CHECK_REPLY 12u
#define BNN_BAUD_FIXED 4u
#define BNN_INFER_REPLY_MAX (BNN_INFER_HEAD + BNN_MAX_SEEDS * BNN_DRAW_BYTES)
#define BNN_HELLO_REPLY_MAX \
    (BNN_HELLO_FIXED + 2u * (1u + BNN_TEXT_MAX) +               \
     (unsigned)(BNN_MODEL_LAYERS) * (5u + BNN_TEXT_MAX) + BNN_HELLO_STATE)
#define BNN_COUNTERS_REPLY (4u + 4u * (unsigned)(BNN_MODEL_LAYERS))
#define BNN_REPLY_MAX                                               \
    BNN_MAX_OF(BNN_MAX_OF(BNN_INFER_REPLY_MAX, BNN_HELLO_REPLY_MAX), \
               BNN_MAX_OF(BNN_COUNTERS_REPLY, BNN_FAULT_BYTES))

#define BNN_REQUEST_ENCODED BNN_FRAME_ENCODED(BNN_REQUEST_MAX + BNN_FRAME_OVERHEAD)

/*
 * What a port's receive buffer should hold: one whole request while another is
 * computed, and a HELLO with a few delimiters beside it.  With less, the
 * server announces a window of one.
 */
#define BNN_RX_SLACK 32u
#define BNN_RX_BACKLOG (BNN_REQUEST_ENCODED + BNN_RX_SLACK)
#define BNN_WINDOW_MAX 8u

#define BNN_STATIC_ASSERT(condition, name) typedef char bnn_assert_##name[(condition) ? 1 : -1]

BNN_STATIC_ASSERT(BNN_MODEL_LOGIT_BYTES == 4 || BNN_MODEL_LOGIT_BYTES == 8, logits_have_4_or_8_bytes);
BNN_STATIC_ASSERT(BNN_MODEL_LAYERS >= 1 && BNN_MODEL_LAYERS <= 255, layer_index_fits_a_byte);
BNN_STATIC_ASSERT(BNN_MODEL_CLASSES >= 1 && BNN_MODEL_CLASSES <= 8000, one_draw_fits_a_frame);
BNN_STATIC_ASSERT(BNN_MODEL_INPUT_BYTES >= 1 && BNN_MODEL_INPUT_BYTES <= 65000, image_fits_a_frame);
BNN_STATIC_ASSERT(BNN_REQUEST_MAX <= 65535u && BNN_REPLY_MAX <= 65535u, lengths_fit_16_bits);

#endif
