#include "bnn.h"

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

int bnn_argmax(const bnn_ctx_t *ctx)
{
    if (ctx == NULL || ctx->logits == NULL) {
        return BNN_ERR_ARG;
    }
    int best = 0;
    int64_t largest = bnn_logit(ctx, 0);
    for (unsigned i = 1; i < ctx->model->classes; i++) {
        const int64_t logit = bnn_logit(ctx, i);
        if (logit > largest) {
            largest = logit;
            best = (int)i;
        }
    }
    return best;
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
        if ((rng->s[0] | rng->s[1] | rng->s[2] | rng->s[3]) == 0) {
            rng->s[3] = 1;
        }
        return;
    }
    const unsigned components = generator == BNN_GENERATOR_TAUS88 ? 3 : 4;
    for (unsigned i = 0; i < components; i++) {
        if (rng->s[i] < minimum[i]) {
            rng->s[i] += minimum[i];
        }
    }
}

/*
 * The draw of 32 weights, shared by all generators: the carry chain of
 * "v + msb(v) > uniform k-bit number".  It starts from the most significant
 * plane, which makes the probabilities 0 and 1 exact.
 */
#define BNN_DRAW(NEXT)                                                                             \
    for (size_t i = 0; i < count; i++, planes += k) {                                              \
        uint32_t x = planes[k - 1];                                                                \
        for (unsigned j = 0; j < k; j++) {                                                         \
            uint32_t r;                                                                            \
            NEXT;                                                                                  \
            x ^= (x ^ r) & (x ^ planes[j]);                                                        \
        }                                                                                          \
        words[i] = x;                                                                              \
    }

void bnn_draw_xorshift128(bnn_rng_t *rng, const uint32_t *planes, unsigned k, uint32_t *words,
                          size_t count)
{
    uint32_t s0 = rng->s[0], s1 = rng->s[1], s2 = rng->s[2], s3 = rng->s[3];

    BNN_DRAW({
        const uint32_t t = s0 ^ (s0 << 11);
        s0 = s1;
        s1 = s2;
        s2 = s3;
        s3 = s3 ^ (s3 >> 19) ^ t ^ (t >> 8);
        r = s3;
    })
    rng->s[0] = s0;
    rng->s[1] = s1;
    rng->s[2] = s2;
    rng->s[3] = s3;
}

/* One step of a Tausworthe component: keeps the bits of mask, feeds back the rest. */
#define BNN_TAUSWORTHE(z, mask, a, b, c) ((((z) & (mask)) << (c)) ^ ((((z) << (a)) ^ (z)) >> (b)))

void bnn_draw_lfsr113(bnn_rng_t *rng, const uint32_t *planes, unsigned k, uint32_t *words,
                      size_t count)
{
    uint32_t s0 = rng->s[0], s1 = rng->s[1], s2 = rng->s[2], s3 = rng->s[3];

    BNN_DRAW({
        s0 = BNN_TAUSWORTHE(s0, 0xFFFFFFFEu, 6, 13, 18);
        s1 = BNN_TAUSWORTHE(s1, 0xFFFFFFF8u, 2, 27, 2);
        s2 = BNN_TAUSWORTHE(s2, 0xFFFFFFF0u, 13, 21, 7);
        s3 = BNN_TAUSWORTHE(s3, 0xFFFFFF80u, 3, 12, 13);
        r = s0 ^ s1 ^ s2 ^ s3;
    })
    rng->s[0] = s0;
    rng->s[1] = s1;
    rng->s[2] = s2;
    rng->s[3] = s3;
}

void bnn_draw_taus88(bnn_rng_t *rng, const uint32_t *planes, unsigned k, uint32_t *words,
                     size_t count)
{
    uint32_t s0 = rng->s[0], s1 = rng->s[1], s2 = rng->s[2];

    BNN_DRAW({
        s0 = BNN_TAUSWORTHE(s0, 0xFFFFFFFEu, 13, 19, 12);
        s1 = BNN_TAUSWORTHE(s1, 0xFFFFFFF8u, 2, 25, 4);
        s2 = BNN_TAUSWORTHE(s2, 0xFFFFFFF0u, 3, 11, 17);
        r = s0 ^ s1 ^ s2;
    })
    rng->s[0] = s0;
    rng->s[1] = s1;
    rng->s[2] = s2;
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
