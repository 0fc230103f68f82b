/*
 * Runs generated models on images and seeds from stdin, for the sanitizers.
 *
 * Image, arena and words are heap blocks of exactly the size promised, so that
 * a sanitizer sees the first byte beyond them; for builds without one the arena
 * is also framed by canaries.  The arena starts out as rubbish each time: no
 * result may depend on what was there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bnn.h"

#define CANARY 0xC0DEFACEu

/* Words on either side of the arena. */
#ifdef CORE_CANARIES
static const size_t guard = 64;
#else
static const size_t guard = 0;
#endif

extern const bnn_model_t *const core_models[];
extern const unsigned core_count;

static void take(void *to, size_t size)
{
    if (size != 0 && fread(to, size, 1, stdin) != 1) {
        fprintf(stderr, "request cut short\n");
        exit(2);
    }
}

static void give(const void *from, size_t size)
{
    if (size != 0 && fwrite(from, size, 1, stdout) != 1) {
        exit(2);
    }
}

static void *block(size_t size)
{
    void *got = malloc(size != 0 ? size : 1);
    if (got == NULL) {
        exit(2);
    }
    return got;
}

static void check(int error)
{
    if (error != BNN_OK) {
        fprintf(stderr, "error %d\n", error);
        exit(3);
    }
}

static unsigned layers_seen;

static void count_layer(void *user, unsigned layer)
{
    if (user != &layers_seen || layer != layers_seen) {
        fprintf(stderr, "hook called with layer %u\n", layer);
        exit(4);
    }
    layers_seen++;
}

static void infer(const bnn_model_t *model, uint32_t count)
{
    const size_t pixels = (size_t)model->height * model->width * model->channels;
    const size_t framed = model->arena_words + 2 * guard;

    for (uint32_t n = 0; n < count; n++) {
        uint8_t *image = block(pixels);
        uint32_t *frame = block(4 * framed);
        uint32_t *arena = frame + guard;
        uint64_t seed;
        bnn_ctx_t ctx;

        for (size_t i = 0; i < framed; i++) {
            frame[i] = i < guard || i >= framed - guard ? CANARY : 0xA5A5A5A5u ^ (uint32_t)i;
        }
        take(image, pixels);
        take(&seed, sizeof seed);
        check(bnn_init(&ctx, model, arena, model->arena_words));
        ctx.hook = count_layer;
        ctx.user = &layers_seen;
        layers_seen = 0;
        check(bnn_infer(&ctx, image, pixels, seed));
        if (layers_seen != model->n_layers) {
            fprintf(stderr, "%u layers seen\n", layers_seen);
            exit(4);
        }
        int best = 0;
        for (unsigned c = 0; c < model->classes; c++) {
            const int64_t logit = bnn_logit(&ctx, c);
            if (logit > bnn_logit(&ctx, (unsigned)best)) {
                best = (int)c;
            }
            give(&logit, sizeof logit);
        }
        if (bnn_argmax(&ctx) != best || bnn_logit(&ctx, model->classes) != INT64_MIN) {
            fprintf(stderr, "wrong label or logit beyond the last\n");
            exit(4);
        }
        /* The image is gone: a redraw must not read it, and must come back to the same. */
        free(image);
        int64_t *first = block(sizeof *first * model->classes);
        for (unsigned c = 0; c < model->classes; c++) {
            first[c] = bnn_logit(&ctx, c);
        }
        ctx.hook = NULL;
        check(bnn_redraw(&ctx, ~seed));
        check(bnn_redraw(&ctx, seed));
        for (unsigned c = 0; c < model->classes; c++) {
            if (bnn_logit(&ctx, c) != first[c]) {
                fprintf(stderr, "%s: a redraw gave another logit\n", model->name);
                exit(7);
            }
        }
        free(first);
        for (size_t i = 0; i < guard; i++) {
            if (frame[i] != CANARY || frame[framed - 1 - i] != CANARY) {
                fprintf(stderr, "%s wrote outside its arena\n", model->name);
                exit(5);
            }
        }
        free(frame);
    }
}

static void sample(const bnn_model_t *model, uint32_t layer, uint32_t count)
{
    uint64_t seed;
    uint32_t first;
    uint32_t *words = block(4 * (size_t)count);

    take(&seed, sizeof seed);
    take(&first, sizeof first);
    check(bnn_sample(model, layer, seed, first, count, words));
    give(words, 4 * (size_t)count);
    free(words);
}

/* Every refusal of the runtime, once; none may touch memory. */
static void refusals(const bnn_model_t *model)
{
    uint8_t pixel = 0;
    uint32_t word = 0;
    uint32_t *arena = block(4 * (size_t)model->arena_words);
    const size_t pixels = (size_t)model->height * model->width * model->channels;
    bnn_ctx_t ctx;
    bnn_model_t drawless = *model;
    unsigned layer = 0;
    int wrong = 0;

    for (unsigned i = 0; i < model->n_layers; i++) {
        layer = model->layers[i].sampled_words != 0 ? i : layer;
    }
    const uint32_t drawn = model->layers[layer].sampled_words;

    drawless.planes = 4;
    drawless.draw = NULL;
    wrong += bnn_init(NULL, model, arena, model->arena_words) != BNN_ERR_ARG;
    wrong += bnn_init(&ctx, NULL, arena, model->arena_words) != BNN_ERR_ARG;
    wrong += bnn_init(&ctx, model, NULL, model->arena_words) != BNN_ERR_ARG;
    wrong += bnn_init(&ctx, &drawless, arena, model->arena_words) != BNN_ERR_ARG;
    wrong += bnn_init(&ctx, model, arena, model->arena_words - 1) != BNN_ERR_SIZE;
    wrong += bnn_init(&ctx, model, arena, model->arena_words) != BNN_OK;
    wrong += bnn_infer(NULL, &pixel, 1, 0) != BNN_ERR_ARG;
    wrong += bnn_infer(&ctx, NULL, pixels, 0) != BNN_ERR_ARG;
    wrong += bnn_infer(&ctx, &pixel, pixels + 1, 0) != BNN_ERR_SIZE;
    wrong += bnn_infer(&ctx, &pixel, 0, 0) != BNN_ERR_SIZE;
    wrong += bnn_redraw(NULL, 0) != BNN_ERR_ARG;
    wrong += bnn_redraw(&ctx, 0) != BNN_ERR_ARG;
    wrong += bnn_logit(&ctx, 0) != INT64_MIN;
    wrong += bnn_argmax(&ctx) != BNN_ERR_ARG;
    wrong += bnn_argmax(NULL) != BNN_ERR_ARG;
    wrong += bnn_sample(NULL, 0, 0, 0, 1, &word) != BNN_ERR_ARG;
    wrong += bnn_sample(model, 0, 0, 0, 1, NULL) != BNN_ERR_ARG;
    wrong += bnn_sample(model, model->n_layers, 0, 0, 1, &word) != BNN_ERR_RANGE;
    wrong += bnn_sample(model, layer, 0, drawn + 1, 0, &word) != BNN_ERR_RANGE;
    wrong += bnn_sample(model, layer, 0, 0, drawn + 1, &word) != BNN_ERR_RANGE;
    wrong += bnn_sample(model, layer, 0, drawn, 1, &word) != BNN_ERR_RANGE;
    wrong += bnn_sample(model, layer, 0, 1, UINT32_MAX, &word) != BNN_ERR_RANGE;
    if (wrong != 0 || word != 0) {
        fprintf(stderr, "%d calls were not refused as promised\n", wrong);
        exit(6);
    }
    free(arena);
}

int main(void)
{
    uint32_t request[4]; /* what, model, then (images, 0) or (layer, words) */

    for (unsigned i = 0; i < core_count; i++) {
        refusals(core_models[i]);
    }
    while (fread(request, sizeof request, 1, stdin) == 1) {
        const bnn_model_t *model = core_models[request[1]];
        if (request[0] == 0) {
            infer(model, request[2]);
        } else {
            sample(model, request[2], request[3]);
        }
    }
    return 0;
}
