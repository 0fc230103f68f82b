/*
 * The native twin: a model compiled for the host and called from Python, many
 * images at a time.  The kernels are the very ones that run on the board.
 */
#include "bnn.h"
#include "bnn_model.h"

#ifdef _WIN32
#define BNN_EXPORT __declspec(dllexport)
#else
#define BNN_EXPORT __attribute__((visibility("default")))
#endif

BNN_EXPORT int bnn_native_run(const uint8_t *images, size_t count, const uint64_t *seeds,
                              size_t draws, int64_t *logits);
BNN_EXPORT int bnn_native_sample(unsigned layer, uint64_t seed, uint32_t n_words,
                                 uint32_t *words);
BNN_EXPORT int bnn_native_trace(const uint8_t *image, uint64_t seed, const uint32_t *ranges,
                                unsigned n_layers, uint32_t arena_words, uint32_t *values,
                                int64_t *logits);

static uint32_t arena[BNN_MODEL_ARENA_WORDS];

/* Logits [count][draws][classes] for images [count] and seeds [count][draws]. */
int bnn_native_run(const uint8_t *images, size_t count, const uint64_t *seeds, size_t draws,
                   int64_t *logits)
{
    bnn_ctx_t ctx;
    int error = bnn_init(&ctx, &bnn_model, arena, BNN_MODEL_ARENA_WORDS);

    for (size_t i = 0; i < count && error == BNN_OK; i++) {
        for (size_t d = 0; d < draws && error == BNN_OK; d++) {
            error = d == 0 ? bnn_infer(&ctx, images, BNN_MODEL_INPUT_BYTES, *seeds)
                           : bnn_redraw(&ctx, *seeds);
            seeds++;
            for (unsigned c = 0; c < BNN_MODEL_CLASSES; c++) {
                *logits++ = bnn_logit(&ctx, c);
            }
        }
        images += BNN_MODEL_INPUT_BYTES;
    }
    return error;
}

int bnn_native_sample(unsigned layer, uint64_t seed, uint32_t n_words, uint32_t *words)
{
    return bnn_sample(&bnn_model, layer, seed, 0, n_words, words);
}

/* Where each layer's result lies, and where its copy goes. */
typedef struct bnn_trace {
    const uint32_t *ranges;
    uint32_t *values;
} bnn_trace_t;

/* A result is whole only until a later layer takes its place, so it is copied at once. */
static void bnn_native_keep(void *user, unsigned layer)
{
    bnn_trace_t *trace = user;
    const uint32_t *words = arena + trace->ranges[2 * layer];
    const uint32_t count = trace->ranges[2 * layer + 1];

    for (uint32_t i = 0; i < count; i++) {
        *trace->values++ = words[i];
    }
}

/*
 * One inference, with the result of every layer: ranges are [n_layers][2],
 * first word and number of words in the arena, and values has room for all of
 * them.  BNN_ERR_SIZE if the caller expects another model.
 */
int bnn_native_trace(const uint8_t *image, uint64_t seed, const uint32_t *ranges,
                     unsigned n_layers, uint32_t arena_words, uint32_t *values, int64_t *logits)
{
    bnn_trace_t trace = {ranges, values};
    bnn_ctx_t ctx;
    int error = bnn_init(&ctx, &bnn_model, arena, BNN_MODEL_ARENA_WORDS);

    if (error == BNN_OK &&
        (n_layers != bnn_model.n_layers || arena_words != BNN_MODEL_ARENA_WORDS)) {
        error = BNN_ERR_SIZE;
    }
    if (error == BNN_OK) {
        ctx.hook = bnn_native_keep;
        ctx.user = &trace;
        error = bnn_infer(&ctx, image, BNN_MODEL_INPUT_BYTES, seed);
    }
    for (unsigned c = 0; c < BNN_MODEL_CLASSES && error == BNN_OK; c++) {
        *logits++ = bnn_logit(&ctx, c);
    }
    return error;
}
