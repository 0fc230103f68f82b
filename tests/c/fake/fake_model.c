/*
 * A model that computes nothing useful, predictably:
 *
 *   logit[i]       = (i + 1) * (sum of the pixels) - (seed modulo 65521), its
 *                    sign flipped where i is odd, for all classes but the last
 *   logit[last]    = inferences run so far, so that a test sees a recomputation
 *   sampled word w = low word of (seed + layer) * 2654435761 + w * 40503
 *
 * Some seeds make trouble on purpose: see the enum.
 */
#include "bnn_model.h"

#include "bnn_port.h"

#include <stdint.h>
#include <stdlib.h>

#define SEED_ERROR UINT64_C(0xE0)   /* the runtime refuses */
#define SEED_FAULT UINT64_C(0xFA)   /* the core faults */
#define SEED_VANISH UINT64_C(0xDE)  /* the board loses its power */
#define SEED_WAIT UINT64_C(0x3A)    /* lasts until a byte comes, within reason */

#define LONGEST_WAIT 50000000u

#define SAMPLED_WORDS 1000u

static const bnn_layer_t layers[BNN_MODEL_LAYERS] = {
    {"conv1", NULL, NULL, 0},
    {"a layer whose name is longer than thirty-one characters", NULL, NULL, SAMPLED_WORDS},
    {"dense", NULL, NULL, 0},
};

const bnn_model_t bnn_model = {
    "fake",
    {0xA5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
     16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 0x5A},
    BNN_MODEL_INPUT_BYTES == 3072 ? 32 : 28,
    BNN_MODEL_INPUT_BYTES == 3072 ? 32 : 28,
    BNN_MODEL_INPUT_BYTES == 3072 ? 3 : 1,
    BNN_MODEL_CLASSES,
    BNN_MODEL_LOGIT_BYTES,
    1,
    4,
    BNN_MODEL_LAYERS,
    layers,
    BNN_MODEL_ARENA_WORDS,
};

static int64_t logits[BNN_MODEL_CLASSES];
static int64_t inferences;
static const uint8_t *last_image;

int bnn_init(bnn_ctx_t *ctx, const bnn_model_t *model, uint32_t *arena, size_t arena_words)
{
    if (arena_words < model->arena_words) {
        return BNN_ERR_SIZE;
    }
    ctx->model = model;
    ctx->arena = arena;
    ctx->hook = NULL;
    ctx->user = NULL;
    return BNN_OK;
}

int bnn_infer(bnn_ctx_t *ctx, const uint8_t *image, size_t image_bytes, uint64_t seed)
{
    int64_t sum = 0;

    if (image_bytes != BNN_MODEL_INPUT_BYTES || ((uintptr_t)image & 3u) != 0) {
        return BNN_ERR_ARG; /* kernels rely on the server aligning the image */
    }
    if (seed == SEED_ERROR) {
        return BNN_ERR_RANGE;
    }
    if (seed == SEED_VANISH) {
        exit(0);
    }
    if (seed == SEED_FAULT) {
        static const uint32_t frame[8] = {1, 2, 3, 4, 12, 0x08000101u, 0x08000200u, 0x61000000u};

        bnn_app_fault(frame, 0x00008200u, 0x40000000u, 0xE000ED34u, 0x20020000u);
        exit(0);
    }
    if (seed == SEED_WAIT) {
        uint32_t received = bnn_port_received();

        for (uint32_t i = 0; i < LONGEST_WAIT && bnn_port_received() == received; i++) {
        }
    }
    last_image = image;
    for (size_t i = 0; i < image_bytes; i++) {
        sum += image[i];
    }
    inferences++;
    for (unsigned i = 0; i + 1u < BNN_MODEL_CLASSES; i++) {
        int64_t value = (int64_t)(i + 1u) * sum - (int64_t)(seed % 65521u);

        logits[i] = (i % 2u) != 0 ? -value : value;
    }
    logits[BNN_MODEL_CLASSES - 1] = inferences;
    for (unsigned layer = 0; layer < BNN_MODEL_LAYERS; layer++) {
        if (ctx->hook != NULL) {
            ctx->hook(ctx->user, layer);
        }
    }
    return BNN_OK;
}

int bnn_redraw(bnn_ctx_t *ctx, uint64_t seed)
{
    return bnn_infer(ctx, last_image, BNN_MODEL_INPUT_BYTES, seed);
}

int64_t bnn_logit(const bnn_ctx_t *ctx, unsigned index)
{
    (void)ctx;
    return logits[index];
}

int bnn_argmax(const bnn_ctx_t *ctx)
{
    int best = 0;

    (void)ctx;
    for (int i = 1; i < BNN_MODEL_CLASSES; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

int bnn_sample(const bnn_model_t *model, unsigned layer, uint64_t seed, uint32_t first_word,
               uint32_t n_words, uint32_t *out)
{
    if (layer >= model->n_layers || first_word + n_words > model->layers[layer].sampled_words) {
        return BNN_ERR_RANGE;
    }
    for (uint32_t i = 0; i < n_words; i++) {
        uint64_t value = (seed + layer) * UINT64_C(2654435761) + (uint64_t)(first_word + i) * 40503u;

        out[i] = (uint32_t)(value & 0xFFFFFFFFu);
    }
    return BNN_OK;
}
