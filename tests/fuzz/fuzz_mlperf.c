/*
 * Text into the MLPerf Tiny server.  Whatever comes in:
 *
 *   - every '%' is answered by lines of plain text whose last is m-ready, and
 *     nothing else is ever sent;
 *   - probabilities are between 0 and 1, and together 1 but for what was cut off;
 *   - afterwards an image can be loaded, printed and inferred, and the logits are
 *     those of the runtime when asked directly; the label is the first of the
 *     largest probabilities.
 *
 * The length of an input chooses the port's state: see start().
 */
#include "bnn_mlperf.h"
#include "bnn_model.h"
#include "bnn_port.h"
#include "fuzz_check.h"
#include "fuzz_port.h"

#include <string.h>

#define MOST 8192u
#define CLASSES ((size_t)BNN_MODEL_CLASSES)

static bnn_ctx_t twin;
static uint32_t twin_arena[BNN_MODEL_ARENA_WORDS];

/* What one poll sent, as text. */
static char text[FUZZ_SENT_MOST + 1u];
static size_t text_size;

static void take_text(void)
{
    const uint8_t *sent = fuzz_port_sent(&text_size);

    memcpy(text, sent, text_size);
    text[text_size] = '\0';
}

/* Six digits after the point, in millionths. */
static unsigned long millionths(const char **at)
{
    unsigned long whole;
    char *end;

    whole = strtoul(*at, &end, 10);
    FUZZ_CHECK(end == *at + 1 && *end == '.', "no probability: %s", *at);
    *at = end + 1;
    for (int i = 0; i < 6; i++) {
        FUZZ_CHECK(**at >= '0' && **at <= '9', "no digit: %s", *at);
        whole = 10u * whole + (unsigned long)(**at - '0');
        (*at)++;
    }
    return whole;
}

/* Checks a line of probabilities; returns the first of the largest. */
static size_t check_results(const char *line)
{
    unsigned long sum = 0;
    unsigned long most = 0;
    size_t label = 0;

    FUZZ_CHECK(strncmp(line, "m-results-[", 11) == 0, "no results: %s", line);
    line += 11;
    for (size_t i = 0; i < CLASSES; i++) {
        unsigned long part = millionths(&line);

        sum += part;
        if (part > most) {
            most = part;
            label = i;
        }
        FUZZ_CHECK(*line == (i + 1u < CLASSES ? ',' : ']'), "cut: %s", line);
        line++;
    }
    /* Each is cut by less than one millionth, and may lie one below that. */
    FUZZ_CHECK(sum <= 1000000u && sum + 2u * CLASSES >= 1000000u, "a sum of %lu", sum);
    return label;
}

static void check_lines(bool answered)
{
    size_t start = 0;
    unsigned ready = 0;

    for (size_t i = 0; i < text_size; i++) {
        bool end = text[i] == '\r';

        FUZZ_CHECK((text[i] >= ' ' && text[i] <= '~') || end, "byte 0x%02x in an answer",
                   (unsigned)(uint8_t)text[i]);
        if (!end) {
            continue;
        }
        FUZZ_CHECK(text[i + 1u] == '\n', "a return without a newline");
        text[i] = '\0';
        ready += strcmp(text + start, "m-ready") == 0;
        if (strncmp(text + start, "m-results", 9) == 0) {
            (void)check_results(text + start);
        }
        text[i] = '\r';
        i++;
        start = i + 1u;
    }
    FUZZ_CHECK(start == text_size, "a line without an end");
    FUZZ_CHECK(ready == (answered ? 1u : 0u), "%u times m-ready", ready);
    FUZZ_CHECK(answered || text_size == 0, "an answer to nothing: %s", text);
    FUZZ_CHECK(!answered || strcmp(text + text_size - 9u, "m-ready\r\n") == 0, "more after m-ready");
}

static void begin(void)
{
    bnn_mlperf_init();
    take_text();
    check_lines(true);
}

/* One poll; false once nothing is left to do. */
static bool poll(void)
{
    bool more;

    if (setjmp(fuzz_reset) != 0) {
        /* A crash in the middle of an answer; then a reset. */
        take_text();
        FUZZ_CHECK(text_size == 0 || text[text_size - 1u] == '\n', "a fault without an end");
        begin();
        return true;
    }
    more = bnn_mlperf_poll();
    take_text();
    check_lines(more);
    return more || !fuzz_port_empty();
}

static void run(const char *commands)
{
    fuzz_port_more((const uint8_t *)commands, strlen(commands));
    while (poll()) {
    }
}

/* The last command of `commands` only, whose answer stays in `text`. */
static const char *ask(const char *commands, const char *begins)
{
    const char *found;

    fuzz_port_more((const uint8_t *)commands, strlen(commands));
    while (!fuzz_port_empty()) {
        FUZZ_CHECK(bnn_mlperf_poll(), "a command without an answer");
        take_text();
        check_lines(true);
    }
    found = strstr(text, begins);
    FUZZ_CHECK(found != NULL, "no %s in: %s", begins, text);
    return found;
}

/* Chosen by the input, and no seed on which the fake model makes trouble. */
static uint64_t some_seed(const uint8_t *data, size_t size)
{
    uint64_t seed = 1000003u;

    for (size_t i = 0; i < size; i++) {
        seed = seed * 6364136223846793005u + data[i];
    }
    return seed < 65536u ? seed + 65536u : seed;
}

static void check_inference(const uint8_t *data, size_t size)
{
    static uint32_t words[(BNN_MODEL_INPUT_BYTES + 3u) / 4u];
    static char commands[256u + 2u * BNN_MODEL_INPUT_BYTES + 6u * (BNN_MODEL_INPUT_BYTES / 30u + 1u)];
    uint8_t *image = (uint8_t *)words;
    uint64_t seed = some_seed(data, size);
    size_t at;
    const char *line;
    size_t label;

    at = (size_t)snprintf(commands, sizeof commands, "seed %llu%%db load %u%%",
                          (unsigned long long)seed, (unsigned)BNN_MODEL_INPUT_BYTES);
    for (size_t i = 0; i < BNN_MODEL_INPUT_BYTES; i++) {
        image[i] = (uint8_t)(size > 0 ? data[i % size] + i / size : i);
        if (i % 30u == 0) {
            at += (size_t)snprintf(commands + at, sizeof commands - at, i == 0 ? "db " : "%%db ");
        }
        at += (size_t)snprintf(commands + at, sizeof commands - at, "%02x", (unsigned)image[i]);
    }
    (void)snprintf(commands + at, sizeof commands - at, "%%");
    line = ask(commands, "m-load-done\r\n");
    line = ask("infer 2 1%", "m-results-[");
    label = check_results(line);
    /* Asked for before the twin runs: the fake model has one set of logits for all. */
    line = ask("logits%", "m-logits-[") + 10;
    /* A warm-up, another one, and the one that counts: the third draw of the sequence. */
    FUZZ_CHECK(bnn_infer(&twin, image, BNN_MODEL_INPUT_BYTES, seed + 2u) == BNN_OK, "infer");
    if (FUZZ_MODEL_IS_FAKE == 0) {
        FUZZ_CHECK(label == (size_t)bnn_argmax(&twin), "another label");
    }
    for (unsigned i = 0; i + FUZZ_MODEL_IS_FAKE < BNN_MODEL_CLASSES; i++) {
        char *end;

        FUZZ_CHECK(strtoll(line, &end, 10) == bnn_logit(&twin, i) && end > line, "logit %u: %s", i,
                   line);
        line = end + 1;
    }
}

/* An input's length chooses what kind of board it comes to. */
static void start(const uint8_t *data, size_t size)
{
    size_t kind = size % 16u;

    fuzz_port_start(data, size, kind == 5u, kind == 6u, (size & 1u) != 0,
                    kind == 3u ? 0 : 180000000u);
    FUZZ_CHECK(bnn_init(&twin, &bnn_model, twin_arena, BNN_MODEL_ARENA_WORDS) == BNN_OK, "init");
    begin();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool corrupt = size % 16u == 6u;

    if (size > MOST) {
        return 0;
    }
    start(data, size);
    while (poll()) {
    }
    run("%");
    ask("name%", "m-name-dut-[fuzz]\r\n");
    if (corrupt) {
        ask("infer%", "e-[");
    } else {
        check_inference(data, size);
    }
    return 0;
}
