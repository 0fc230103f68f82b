#include "bnn_internal.h"

int bnn_init(bnn_ctx_t *ctx, const bnn_model_t *model, uint32_t *arena, size_t arena_words)
{
    if (ctx == NULL || model == NULL || arena == NULL || model->layers == NULL) {
        return BNN_ERR_ARG;
    }
    if (model->planes != 0 && model->draw == NULL) {
        return BNN_ERR_ARG;
    }
    if (arena_words < model->arena_words) {
        return BNN_ERR_SIZE;
    }
    ctx->model = model;
    ctx->arena = arena;
    ctx->image = NULL;
    ctx->logits = NULL;
    ctx->hook = NULL;
    ctx->user = NULL;
    bnn_seed(&ctx->rng, model->generator, 0);
    return BNN_OK;
}

static void bnn_run_from(bnn_ctx_t *ctx, unsigned layer)
{
    for (; layer < ctx->model->n_layers; layer++) {
        ctx->model->layers[layer].run(ctx);
        if (ctx->hook != NULL) {
            ctx->hook(ctx->user, layer);
        }
    }
}

int bnn_infer(bnn_ctx_t *ctx, const uint8_t *image, size_t image_bytes, uint64_t seed)
{
    if (ctx == NULL || ctx->model == NULL || image == NULL) {
        return BNN_ERR_ARG;
    }
    const bnn_model_t *model = ctx->model;
    const size_t expected = (size_t)model->height * model->width * model->channels;
    if (image_bytes != expected) {
        return BNN_ERR_SIZE;
    }
    ctx->image = image;
    bnn_seed(&ctx->rng, model->generator, seed);
    bnn_run_from(ctx, 0);
    return BNN_OK;
}

int bnn_redraw(bnn_ctx_t *ctx, uint64_t seed)
{
    if (ctx == NULL || ctx->model == NULL || ctx->logits == NULL) {
        return BNN_ERR_ARG;
    }
    bnn_seed(&ctx->rng, ctx->model->generator, seed);
    bnn_run_from(ctx, ctx->model->first_drawn);
    return BNN_OK;
}

int64_t bnn_logit(const bnn_ctx_t *ctx, unsigned index)
{
    if (ctx == NULL || ctx->logits == NULL || index >= ctx->model->classes) {
        return INT64_MIN;
    }
    const uint64_t low = ctx->logits[2 * index];
    const uint64_t high = ctx->logits[2 * index + 1];
    return (int64_t)(high << 32 | low);
}

/* The borrow of x - y - borrow: with 0, whether x < y.  Without a branch, as in the kernels. */
static uint32_t bnn_borrow(uint32_t x, uint32_t y, uint32_t borrow)
{
    return bnn_opaque(((~x & y) | ((~x | y) & (x - y - borrow))) >> 31);
}

int bnn_argmax(const bnn_ctx_t *ctx)
{
    if (ctx == NULL || ctx->logits == NULL) {
        return BNN_ERR_ARG;
    }
    const uint32_t *logits = ctx->logits;
    const uint32_t turn = 0x80000000u; /* signed numbers in the order of unsigned ones */
    uint32_t best = 0, low = logits[0], high = logits[1] ^ turn;
    for (uint32_t i = 1; i < ctx->model->classes; i++) {
        const uint32_t own_low = logits[2 * i], own_high = logits[2 * i + 1] ^ turn;
        const uint32_t larger = 0u - bnn_borrow(high, own_high, bnn_borrow(low, own_low, 0));
        best = bnn_select(larger, i, best);
        low = bnn_select(larger, own_low, low);
        high = bnn_select(larger, own_high, high);
    }
    return (int)best;
}

/* The finaliser of MurmurHash3: a bijection that spreads every bit. */
static uint32_t bnn_fmix32(uint32_t h)
{
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    h ^= h >> 16;
    return h;
}

void bnn_seed(bnn_rng_t *rng, uint8_t generator, uint64_t seed)
{
    static const uint32_t mix[4] = {0x9E3779B9u, 0x85EBCA6Bu, 0xC2B2AE35u, 0x27D4EB2Fu};
    /* Below these the Tausworthe components degenerate (L'Ecuyer, 1999). */
    static const uint8_t minimum[4] = {2, 8, 16, 128};
    const uint32_t low = (uint32_t)seed;
    const uint32_t high = (uint32_t)(seed >> 32);

    for (unsigned i = 0; i < 4; i++) {
        rng->s[i] = bnn_fmix32(bnn_fmix32(low ^ mix[i]) + high + i);
    }
    if (generator == BNN_GENERATOR_XORSHIFT128) {
        const uint32_t any = rng->s[0] | rng->s[1] | rng->s[2] | rng->s[3];
        /* 1 if all are zero: no branch here or below, so that no count depends on a seed. */
        rng->s[3] |= bnn_borrow(any, 1, 0);
        return;
    }
    const unsigned components = generator == BNN_GENERATOR_TAUS88 ? 3 : 4;
    for (unsigned i = 0; i < components; i++) {
        rng->s[i] += minimum[i] & (0u - bnn_borrow(rng->s[i], minimum[i], 0));
    }
}

int bnn_sample(const bnn_model_t *model, unsigned layer, uint64_t seed, uint32_t first_word,
               uint32_t n_words, uint32_t *words)
{
    if (model == NULL || words == NULL) {
        return BNN_ERR_ARG;
    }
    if (layer >= model->n_layers) {
        return BNN_ERR_RANGE;
    }
    const bnn_layer_t *wanted = &model->layers[layer];
    if (first_word > wanted->sampled_words || n_words > wanted->sampled_words - first_word) {
        return BNN_ERR_RANGE;
    }
    if (n_words == 0) {
        return BNN_OK;
    }
    bnn_rng_t rng;
    uint32_t skipped;
    bnn_seed(&rng, model->generator, seed);
    for (unsigned i = 0; i <= layer; i++) {
        const bnn_layer_t *at = &model->layers[i];
        const uint32_t *planes = at->planes;
        const uint32_t skip = i < layer ? at->sampled_words : first_word;
        for (uint32_t w = 0; w < skip; w++, planes += model->planes) {
            model->draw(&rng, planes, model->planes, &skipped, 1);
        }
        if (i == layer) {
            model->draw(&rng, planes, model->planes, words, n_words);
        }
    }
    return BNN_OK;
}
