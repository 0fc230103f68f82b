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

/* Logits [count][draws][classes] for images [count] and seeds [count][draws]. */
int bnn_native_run(const uint8_t *images, size_t count, const uint64_t *seeds, size_t draws,
                   int64_t *logits)
{
    static uint32_t arena[BNN_MODEL_ARENA_WORDS];
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
