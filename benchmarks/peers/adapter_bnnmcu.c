/* A network of ours: the pixels as they are, and the seed of this inference's draw. */
#include "bnn_model.h"
#include "peer.h"

static uint32_t arena[BNN_MODEL_ARENA_WORDS];
static uint8_t input[BNN_MODEL_INPUT_BYTES];
static bnn_ctx_t net;
static uint32_t draw;

void peer_prepare(const uint8_t pixels[PEER_PIXELS], uint32_t seed)
{
    (void)bnn_init(&net, &bnn_model, arena, BNN_MODEL_ARENA_WORDS);
    for (unsigned i = 0; i < PEER_PIXELS; i++) {
        input[i] = pixels[i];
    }
    draw = seed;
}

int peer_run(void)
{
    return bnn_infer(&net, input, sizeof input, draw);
}

uint64_t peer_logit(unsigned index)
{
    return (uint64_t)bnn_logit(&net, index);
}
