/*
 * The runtime's interface with nothing behind it but fake_model.c, so that the
 * link is tested without the compiler and the kernels.
 */
#ifndef BNN_H
#define BNN_H

#include <stddef.h>
#include <stdint.h>

enum { BNN_OK = 0, BNN_ERR_ARG = -1, BNN_ERR_SIZE = -2, BNN_ERR_RANGE = -3 };

typedef struct bnn_rng {
    uint32_t s[4];
} bnn_rng_t;
typedef struct bnn_ctx bnn_ctx_t;
typedef void (*bnn_hook_t)(void *user, unsigned layer);
typedef struct bnn_layer {
    const char *name;
    void (*run)(bnn_ctx_t *ctx);
    const uint32_t *planes;
    uint32_t sampled_words;
} bnn_layer_t;
typedef struct bnn_model {
    const char *name;
    uint8_t sha256[32];
    uint16_t height, width, channels, classes;
    uint8_t logit_bytes;
    uint8_t generator;
    uint8_t planes;
    uint8_t n_layers;
    const bnn_layer_t *layers;
    uint32_t arena_words;
} bnn_model_t;
struct bnn_ctx {
    const bnn_model_t *model;
    uint32_t *arena;
    const uint8_t *image;
    bnn_rng_t rng;
    bnn_hook_t hook;
    void *user;
};

int bnn_init(bnn_ctx_t *ctx, const bnn_model_t *model, uint32_t *arena, size_t arena_words);
int bnn_infer(bnn_ctx_t *ctx, const uint8_t *image, size_t image_bytes, uint64_t seed);
int bnn_redraw(bnn_ctx_t *ctx, uint64_t seed);
int64_t bnn_logit(const bnn_ctx_t *ctx, unsigned index);
int bnn_argmax(const bnn_ctx_t *ctx);
int bnn_sample(const bnn_model_t *model, unsigned layer, uint64_t seed, uint32_t first_word,
               uint32_t n_words, uint32_t *out);

#endif
