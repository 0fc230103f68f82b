#include "bnn_small.h" /* before any code */

#include "bnn_mlperf.h"

#include "bnn_health.h"
#include "bnn_mlperf_internal.h"
#include "bnn_model.h"
#include "bnn_port.h"

/* The runner's own limit; its longest command loads 31 bytes. */
#define COMMAND_MOST 80u

/* Inferences that one command may ask for; the fuzzer lowers it. */
#ifndef BNN_MLPERF_MOST
#define BNN_MLPERF_MOST 1000000u
#endif

/* What the reference takes where `infer` is not told. */
#define DEFAULT_WARMUPS 10u

static char command[COMMAND_MOST];
static size_t command_size;
static const char *spoiled; /* why the command that is coming in cannot be used, or NULL */

static uint32_t arena[BNN_MODEL_ARENA_WORDS];
static bnn_ctx_t context;
static int context_state;
static bool inferred;
static uint64_t next_seed;

/* Ticks since the start; the port's own counter wraps within half a minute. */
static uint64_t elapsed;
static uint32_t last_ticks;

BNN_CALLED static void count_time(void)
{
    uint32_t now = bnn_port_ticks();

    elapsed += now - last_ticks;
    last_ticks = now;
}

/*
 * Microseconds only where the counter counts cycles of a known clock.  Ticks of
 * an emulator, or of a timer of unknown rate, go by another name, which no
 * runner takes for time.
 */
BNN_CALLED static void put_lap(void)
{
    uint32_t hertz = bnn_port_clock_hz();
    uint8_t kind = bnn_port_counter();

    count_time();
    if (kind == BNN_COUNTER_DWT && hertz != 0) {
        uint64_t rest;
        uint64_t us = bnn_divide(elapsed, hertz, &rest) * BNN_MILLION;

        /* Less than a second of ticks, so that the product fits. */
        us += bnn_divide(rest * BNN_MILLION, hertz, &rest);
        bnn_put_counted("m-lap-us-", us, "\r\n");
    } else if (kind != BNN_COUNTER_NONE) {
        bnn_put_counted("m-lap-ticks-", elapsed, "\r\n");
    } else {
        bnn_put_text("m-lap-none\r\n");
    }
}

BNN_CALLED static int infer_times(uint64_t count)
{
    int status = BNN_OK;

    while (count > 0 && status == BNN_OK) {
        bnn_port_alive();
        status = bnn_infer(&context, bnn_input_image(), (size_t)BNN_MODEL_INPUT_BYTES, next_seed);
        next_seed++;
        count--;
        count_time();
    }
    return status;
}

static void infer(uint64_t count, uint64_t warmups)
{
    int status;

    inferred = false;
    bnn_put_counted("m-warmup-start-", warmups, "\r\n");
    status = infer_times(warmups);
    bnn_put_text("m-warmup-done\r\n");
    bnn_put_counted("m-infer-start-", count, "\r\n");
    if (status == BNN_OK) {
        put_lap();
        status = infer_times(count);
        put_lap();
    }
    if (status != BNN_OK) {
        bnn_put_counted("e-[The network refused: error ", (uint64_t)-status, "]\r\n");
        return;
    }
    inferred = true;
    bnn_put_text("m-infer-done\r\n");
    bnn_put_results(&context);
}

static void answer_infer(void)
{
    bnn_word_t word;
    uint64_t count = 1;
    uint64_t warmups = DEFAULT_WARMUPS;

    if (bnn_next_word(&word)) {
        if (!bnn_word_number(&word, BNN_MLPERF_MOST, &count) || count == 0) {
            bnn_put_counted("e-[Inference iterations must be 1 to ", BNN_MLPERF_MOST, "]\r\n");
            return;
        }
        if (bnn_next_word(&word) && !bnn_word_number(&word, BNN_MLPERF_MOST, &warmups)) {
            bnn_put_counted("e-[Inference warmup must be 0 to ", BNN_MLPERF_MOST, "]\r\n");
            return;
        }
    }
    if (!bnn_no_more_words()) {
        return;
    }
    if (bnn_input_loaded() != BNN_MODEL_INPUT_BYTES) {
        bnn_put_counted("e-[The input needs ", BNN_MODEL_INPUT_BYTES, " bytes");
        bnn_put_counted(", loaded are ", bnn_input_loaded(), "]\r\n");
    } else if ((bnn_health_state() & BNN_STATE_CORRUPT) != 0) {
        bnn_put_refusal("The firmware in flash does not match its checksum");
    } else if (context_state != BNN_OK) {
        bnn_put_counted("e-[The network refused: error ", (uint64_t)-context_state, "]\r\n");
    } else {
        infer(count, warmups);
    }
}

static void answer_seed(void)
{
    bnn_word_t word;
    uint64_t seed;

    if (bnn_next_word(&word)) {
        if (!bnn_word_number(&word, UINT64_MAX, &seed)) {
            bnn_put_refusal("A seed is a decimal number below 2^64");
            return;
        }
        if (!bnn_no_more_words()) {
            return;
        }
        next_seed = seed;
    }
    bnn_put_counted("m-seed-[", next_seed, "]\r\n");
}

BNN_CALLED static void answer_help(void)
{
    bnn_put_text("bnnmcu, with the commands of ULPMark for tinyML Firmware V0.0.1\r\n\r\n"
                 "help         : Print this information\r\n"
                 "name         : Print the name of the device\r\n"
                 "profile      : Print the protocol and the network\r\n"
                 "timestamp    : Print a timestamp\r\n"
                 "db SUBCMD    : Manipulate the input\r\n"
                 "  load N     : Expect N bytes\r\n"
                 "  HH[HH]*    : Load hex bytes until there are N\r\n"
                 "  print      : Print what is loaded, as hex\r\n"
                 "infer N [W]  : Run N inferences after W warm-ups\r\n"
                 "results      : Print the last probabilities\r\n"
                 "logits       : Print the last integer logits\r\n"
                 "seed [S]     : Print or set the number of the next draw\r\n");
}

static void answer_last(bool as_logits)
{
    if (!inferred) {
        bnn_put_refusal("No inference yet");
    } else if (as_logits) {
        bnn_put_logits(&context);
    } else {
        bnn_put_results(&context);
    }
}

static void answer(void)
{
    bnn_word_t word;

    bnn_words_begin(command, command_size);
    if (!bnn_next_word(&word)) {
        return;
    }
    if (bnn_word_is(&word, "db")) {
        bnn_answer_db();
    } else if (bnn_word_is(&word, "infer")) {
        answer_infer();
    } else if (bnn_word_is(&word, "seed")) {
        answer_seed();
    } else if (bnn_word_is(&word, "results") || bnn_word_is(&word, "logits")) {
        answer_last(bnn_word_is(&word, "logits"));
    } else if (bnn_word_is(&word, "name")) {
        bnn_put_text("m-name-dut-[");
        bnn_put_text(bnn_port_board);
        bnn_put_text("]\r\n");
    } else if (bnn_word_is(&word, "timestamp")) {
        put_lap();
    } else if (bnn_word_is(&word, "profile")) {
        bnn_put_text("m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[");
        bnn_put_text(bnn_model.name);
        bnn_put_text("]\r\n");
    } else if (bnn_word_is(&word, "help")) {
        answer_help();
    } else {
        bnn_put_text("e-[Unknown command: ");
        bnn_port_write((const uint8_t *)word.text, word.size);
        bnn_put_text("]\r\n");
    }
}

void bnn_mlperf_init(void)
{
    uint8_t check[BNN_CHECK_REPLY];

    bnn_input_reset();
    command_size = 0;
    spoiled = NULL;
    inferred = false;
    next_seed = 0;
    elapsed = 0;
    last_ticks = bnn_port_ticks();
    bnn_health_init(check);
    context_state = bnn_init(&context, &bnn_model, arena, (size_t)BNN_MODEL_ARENA_WORDS);
    bnn_put_text("m-timestamp-mode-performance\r\n");
    put_lap();
    bnn_put_text("m-init-done\r\nm-ready\r\n");
}

/* One received byte; true if it ended a command. */
static bool take(uint8_t byte)
{
    if (byte == '%') {
        if (spoiled != NULL) {
            bnn_put_refusal(spoiled);
        } else {
            answer();
        }
        command_size = 0;
        spoiled = NULL;
        bnn_put_text("m-ready\r\n");
        return true;
    }
    if (byte == '\r' || byte == '\n') {
        return false; /* of a terminal; no command has them */
    }
    if (byte < ' ' || byte > '~') {
        spoiled = "Unreadable command";
    } else if (command_size == COMMAND_MOST) {
        spoiled = "Command too long";
    } else {
        command[command_size] = (char)byte;
        command_size++;
    }
    return false;
}

bool bnn_mlperf_poll(void)
{
    int byte;

    count_time();
    if (bnn_port_overrun()) {
        spoiled = "Received bytes were lost";
    }
    byte = bnn_port_read();
    while (byte >= 0) {
        if (take((uint8_t)byte)) {
            /* Under steady load the main loop never waits. */
            bnn_port_alive();
            return true;
        }
        byte = bnn_port_read();
    }
    return false;
}

void bnn_mlperf_run(void)
{
    bnn_mlperf_init();
    for (;;) {
        while (bnn_mlperf_poll()) {
        }
        bnn_port_wait();
    }
}

/* In words, for whoever reads the runner's log; nothing is answered after it. */
void bnn_app_fault(const uint32_t frame[8], uint32_t cfsr, uint32_t hfsr, uint32_t mmfar,
                   uint32_t bfar)
{
    const uint32_t values[] = {frame[6], frame[5], cfsr, hfsr, mmfar, bfar};
    static const char *const names[] = {"\r\ne-[Fault: pc ", ", lr ",    ", cfsr ",
                                        ", hfsr ",           ", mmfar ", ", bfar "};

    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        bnn_put_text(names[i]);
        bnn_put_hex(values[i], 8);
    }
    bnn_put_text("]\r\n");
}
