#include "bnn_small.h" /* before any code */

#include "bnn_mlperf_internal.h"

#include "bnn_model.h"
#include "bnn_port.h"

/* Bytes in a line of `db print`. */
#define PRINTED 8u

/* Kernels read the image as 32-bit units. */
static uint32_t words[(BNN_MODEL_INPUT_BYTES + 3u) / 4u];
static uint8_t *const image = (uint8_t *)words;
static size_t announced; /* bytes that `db load` promised */
static size_t loaded;    /* bytes of them that have come */

void bnn_input_reset(void)
{
    announced = 0;
    loaded = 0;
}

size_t bnn_input_loaded(void)
{
    return loaded;
}

const uint8_t *bnn_input_image(void)
{
    return image;
}

/* A hex digit's value, or 16. */
static unsigned hex_value(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return (unsigned)(digit - '0');
    }
    if (digit >= 'a' && digit <= 'f') {
        return (unsigned)(digit - 'a') + 10u;
    }
    return digit >= 'A' && digit <= 'F' ? (unsigned)(digit - 'A') + 10u : 16u;
}

static void load_begin(void)
{
    bnn_word_t word;
    uint64_t size;

    if (!bnn_next_word(&word)) {
        bnn_put_refusal("Command 'db load' requires the # of bytes");
    } else if (!bnn_word_number(&word, BNN_MODEL_INPUT_BYTES, &size) || size == 0) {
        bnn_put_counted("e-[Command 'db load' takes 1 to ", BNN_MODEL_INPUT_BYTES, " bytes]\r\n");
    } else if (bnn_no_more_words()) {
        announced = (size_t)size;
        loaded = 0;
        bnn_put_counted("m-[Expecting ", announced, " bytes]\r\n");
    }
}

/* All digits are looked at before any is stored: a refused command changes nothing. */
static void load_bytes(const bnn_word_t *digits)
{
    if ((digits->size & 1u) != 0) {
        bnn_put_refusal("Odd number of hex digits");
        return;
    }
    for (size_t i = 0; i < digits->size; i++) {
        if (hex_value(digits->text[i]) > 15u) {
            bnn_put_refusal("Invalid hex digit");
            return;
        }
    }
    if (loaded >= announced) {
        bnn_put_refusal("Nothing is expected: db load first");
        return;
    }
    if (!bnn_no_more_words()) {
        return;
    }
    /* Digits beyond the announced size are disregarded, as the reference does. */
    for (size_t i = 0; i < digits->size && loaded < announced; i += 2u) {
        image[loaded] =
            (uint8_t)(hex_value(digits->text[i]) << 4 | hex_value(digits->text[i + 1u]));
        loaded++;
    }
    if (loaded == announced) {
        bnn_put_text("m-load-done\r\n");
    }
}

static void print_buffer(void)
{
    for (size_t i = 0; i < loaded; i++) {
        if (i % PRINTED == 0) {
            bnn_port_alive();
            bnn_put_text("m-buffer-");
        }
        bnn_put_hex(image[i], 2);
        bnn_put_text((i + 1u) % PRINTED == 0 || i + 1u == loaded ? "\r\n" : "-");
    }
}

void bnn_answer_db(void)
{
    bnn_word_t word;

    if (!bnn_next_word(&word)) {
        bnn_put_refusal("Command 'db' requires a subcommand");
    } else if (bnn_word_is(&word, "load")) {
        load_begin();
    } else if (bnn_word_is(&word, "print")) {
        if (bnn_no_more_words()) {
            print_buffer();
        }
    } else {
        load_bytes(&word);
    }
}
