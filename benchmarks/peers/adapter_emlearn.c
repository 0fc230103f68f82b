/* A multi-layer perceptron of emlearn: float in, probabilities out. */
#include "mlp.h"
#include "peer.h"

static float input[PEER_PIXELS];
static float output[PEER_CLASSES];

void peer_prepare(const uint8_t pixels[PEER_PIXELS], uint32_t seed)
{
    (void)seed;
    for (unsigned i = 0; i < PEER_PIXELS; i++) {
        input[i] = (float)pixels[i] / 255.0f;
    }
}

int peer_run(void)
{
    return eml_net_predict_proba(&mlp, input, (int32_t)PEER_PIXELS, output, (int32_t)PEER_CLASSES);
}

uint64_t peer_logit(unsigned index)
{
    union {
        float value;
        uint32_t bits;
    } logit = {output[index]};

    return logit.bits;
}
