#include "bnn_small.h" /* before any code */

#include "bnn_mlperf_internal.h"

#include "bnn_port.h"

/* The command that is being answered, and how far its words were taken. */
static const char *line;
static size_t line_size;
static size_t line_at;

void bnn_put_text(const char *text)
{
    /* Byte by byte: compilers make a call of strlen of a loop that counts. */
    for (; *text != '\0'; text++) {
        bnn_port_write((const uint8_t *)text, 1);
    }
}

/* Bit by bit: small, and no core here divides 64 bits. */
uint64_t bnn_divide(uint64_t value, uint64_t by, uint64_t *remainder)
{
    uint64_t quotient = 0;
    uint64_t rest = 0;

    for (unsigned bit = 64; bit > 0; bit--) {
        rest = rest << 1 | (value >> (bit - 1u) & 1u);
        quotient <<= 1;
        if (rest >= by) {
            rest -= by;
            quotient |= 1u;
        }
    }
    *remainder = rest;
    return quotient;
}

void bnn_put_number(uint64_t value, size_t least)
{
    uint8_t digits[20]; /* of 2^64 - 1 */
    size_t at = sizeof digits;

    do {
        uint64_t digit;

        value = bnn_divide(value, 10u, &digit);
        at--;
        digits[at] = (uint8_t)('0' + digit);
    } while (at > 0 && (value != 0 || sizeof digits - at < least));
    bnn_port_write(digits + at, sizeof digits - at);
}

void bnn_put_hex(uint32_t value, unsigned digits)
{
    while (digits > 0) {
        digits--;
        bnn_port_write((const uint8_t *)&"0123456789abcdef"[value >> (4u * digits) & 15u], 1);
    }
}

void bnn_put_counted(const char *before, uint64_t value, const char *after)
{
    bnn_put_text(before);
    bnn_put_number(value, 1);
    bnn_put_text(after);
}

void bnn_put_refusal(const char *why)
{
    bnn_put_text("e-[");
    bnn_put_text(why);
    bnn_put_text("]\r\n");
}

void bnn_words_begin(const char *command, size_t size)
{
    line = command;
    line_size = size;
    line_at = 0;
}

bool bnn_next_word(bnn_word_t *word)
{
    while (line_at < line_size && line[line_at] == ' ') {
        line_at++;
    }
    word->text = line + line_at;
    word->size = 0;
    while (line_at < line_size && line[line_at] != ' ') {
        line_at++;
        word->size++;
    }
    return word->size > 0;
}

bool bnn_word_is(const bnn_word_t *word, const char *name)
{
    size_t i = 0;

    while (i < word->size && name[i] != '\0' && word->text[i] == name[i]) {
        i++;
    }
    return i == word->size && name[i] == '\0';
}

bool bnn_word_number(const bnn_word_t *word, uint64_t most, uint64_t *value)
{
    uint64_t rest;
    uint64_t tenth = bnn_divide(most, 10u, &rest);

    *value = 0;
    for (size_t i = 0; i < word->size; i++) {
        unsigned digit = (unsigned)(word->text[i] - '0');

        if (word->text[i] < '0' || digit > 9u || *value > tenth) {
            return false;
        }
        *value *= 10u;
        if (digit > most - *value) {
            return false;
        }
        *value += digit;
    }
    return word->size > 0;
}

bool bnn_no_more_words(void)
{
    bnn_word_t extra;

    if (bnn_next_word(&extra)) {
        bnn_put_refusal("Too many arguments");
        return false;
    }
    return true;
}
