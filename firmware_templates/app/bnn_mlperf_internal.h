/* Between the files of the MLPerf Tiny server; nobody else includes this. */
#ifndef BNN_MLPERF_INTERNAL_H
#define BNN_MLPERF_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bnn.h"

#define BNN_MILLION 1000000u

/* Small and called from many places: copies of them would be most of the code. */
#ifdef __GNUC__
#define BNN_CALLED __attribute__((noinline))
#else
#define BNN_CALLED
#endif

/* bnn_mlperf_text.c: lines out, words in. */

BNN_CALLED void bnn_put_text(const char *text);

/* In decimal, with zeros in front up to `least` digits. */
BNN_CALLED void bnn_put_number(uint64_t value, size_t least);

/* The lowest `digits` hex digits. */
BNN_CALLED void bnn_put_hex(uint32_t value, unsigned digits);

/* A number between two texts. */
BNN_CALLED void bnn_put_counted(const char *before, uint64_t value, const char *after);

/* The line by which a command is refused. */
BNN_CALLED void bnn_put_refusal(const char *why);

/* Quotient and remainder; `by` is below 2^63 and not 0. */
BNN_CALLED uint64_t bnn_divide(uint64_t value, uint64_t by, uint64_t *remainder);

/* A part of a command; no zero ends it. */
typedef struct bnn_word {
    const char *text;
    size_t size;
} bnn_word_t;

/* Take the words of this command from now on; it must stay where it is. */
void bnn_words_begin(const char *command, size_t size);

/* Returns false, and an empty word, after the last one. */
BNN_CALLED bool bnn_next_word(bnn_word_t *word);

BNN_CALLED bool bnn_word_is(const bnn_word_t *word, const char *name);

/* Decimal digits and nothing else, up to `most`. */
BNN_CALLED bool bnn_word_number(const bnn_word_t *word, uint64_t most, uint64_t *value);

/* True if no word is left; or the command is refused. */
BNN_CALLED bool bnn_no_more_words(void);

/* bnn_mlperf_input.c: what `db` does. */

/* Forget what was loaded. */
void bnn_input_reset(void);

void bnn_answer_db(void);

/* Bytes that have come since the last `db load`; all of them if BNN_MODEL_INPUT_BYTES. */
size_t bnn_input_loaded(void);

const uint8_t *bnn_input_image(void);

/* bnn_mlperf_results.c: the last inference in numbers. */

/* Probabilities of the classes; the first of the largest is the label. */
BNN_CALLED void bnn_put_results(const bnn_ctx_t *context);

BNN_CALLED void bnn_put_logits(const bnn_ctx_t *context);

#endif
