/*
 * bnn: inference of binarized networks in static memory.
 *
 * The caller owns all memory: a context, an arena of the size the model asks
 * for, and the image.  Nothing is allocated, nothing recurses, and the same
 * model, image and seed give the same logits on every machine.
 *
 *     static uint32_t arena[BNN_MODEL_ARENA_WORDS];
 *     bnn_ctx_t net;
 *     bnn_init(&net, &bnn_model, arena, BNN_MODEL_ARENA_WORDS);
 *     bnn_infer(&net, image, sizeof image, seed);
 *     int label = bnn_argmax(&net);
 */
#ifndef BNN_H
#define BNN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum bnn_error {
    BNN_OK = 0,
    BNN_ERR_ARG = -1,   /* a null pointer, or a model that needs another runtime */
    BNN_ERR_SIZE = -2,  /* the arena is too small, or the image has another size */
    BNN_ERR_RANGE = -3, /* no such layer, or words beyond its end */
};

enum bnn_generator {
    BNN_GENERATOR_NONE = 0,
    BNN_GENERATOR_XORSHIFT128 = 1,
    BNN_GENERATOR_LFSR113 = 2,
    BNN_GENERATOR_TAUS88 = 3,
};

/* State of a generator; taus88 uses the first three words. */
typedef struct bnn_rng {
    uint32_t s[4];
} bnn_rng_t;

typedef struct bnn_ctx bnn_ctx_t;

/* Draws count words of weights, each from its k bit-planes (least significant first). */
typedef void (*bnn_draw_t)(bnn_rng_t *rng, const uint32_t *planes, unsigned k, uint32_t *words,
                           size_t count);

/* Called after each layer, with its index. */
typedef void (*bnn_hook_t)(void *user, unsigned layer);

typedef struct bnn_layer {
    const char *name;
    void (*run)(bnn_ctx_t *ctx);
    const uint32_t *planes; /* bit-planes of drawn weights, or NULL */
    uint32_t sampled_words; /* words of drawn weights, 0 if none */
} bnn_layer_t;

typedef struct bnn_model {
    const char *name;
    uint8_t sha256[32]; /* fingerprint of the integer graph */
    uint16_t height, width, channels, classes;
    uint8_t logit_bytes; /* 4 or 8: width that holds every logit */
    uint8_t generator;   /* enum bnn_generator */
    uint8_t planes;      /* k, 0 if nothing is drawn */
    uint8_t n_layers;
    uint8_t first_drawn; /* from this layer on, all may depend on draws; n_layers: none does */
    const bnn_layer_t *layers;
    uint32_t arena_words;
    bnn_draw_t draw; /* NULL if nothing is drawn */
} bnn_model_t;

struct bnn_ctx {
    const bnn_model_t *model;
    uint32_t *arena;
    const uint8_t *image;
    const uint32_t *logits; /* low and high word of each, set by the last layer */
    bnn_rng_t rng;
    bnn_hook_t hook; /* may be set by the caller after bnn_init; NULL is none */
    void *user;      /* handed to the hook */
};

/* Binds a context to a model and an arena.  BNN_OK, BNN_ERR_ARG or BNN_ERR_SIZE. */
int bnn_init(bnn_ctx_t *ctx, const bnn_model_t *model, uint32_t *arena, size_t arena_words);

/*
 * One forward pass over height * width * channels pixels.  The seed decides
 * every draw; a model without drawn weights ignores it.
 */
int bnn_infer(bnn_ctx_t *ctx, const uint8_t *image, size_t image_bytes, uint64_t seed);

/*
 * The last image again with another seed: only the layers from the first drawn
 * one on are run, as nothing before them depends on the seed.  Gives what
 * bnn_infer would; the image itself is not read again.
 */
int bnn_redraw(bnn_ctx_t *ctx, uint64_t seed);

/* A logit of the last inference; INT64_MIN for an index that does not exist. */
int64_t bnn_logit(const bnn_ctx_t *ctx, unsigned index);

/* The label of the last inference: the first of the largest logits. */
int bnn_argmax(const bnn_ctx_t *ctx);

/*
 * The weights that a seed draws for a layer, as packed words first_word to
 * first_word + n_words - 1.  Layers drawn before it are drawn too, so this
 * takes as long as they do.
 */
int bnn_sample(const bnn_model_t *model, unsigned layer, uint64_t seed, uint32_t first_word,
               uint32_t n_words, uint32_t *words);

/* Seeds a generator: mixed so that neighbouring seeds give unrelated states. */
void bnn_seed(bnn_rng_t *rng, uint8_t generator, uint64_t seed);

void bnn_draw_xorshift128(bnn_rng_t *rng, const uint32_t *planes, unsigned k, uint32_t *words,
                          size_t count);
void bnn_draw_lfsr113(bnn_rng_t *rng, const uint32_t *planes, unsigned k, uint32_t *words,
                      size_t count);
void bnn_draw_taus88(bnn_rng_t *rng, const uint32_t *planes, unsigned k, uint32_t *words,
                     size_t count);

#ifdef __cplusplus
}
#endif

#endif
