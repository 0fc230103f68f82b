/* A network of BakeNN: int8 in, int8 out, an arena that the caller owns. */
#include "bknn_a64.h"
#include "peer.h"

/* Pixels are 0 to 255 on a scale of 1/255: the int8 code is the pixel less 128, exactly. */
_Static_assert(BKNN_A64_INPUT_ZERO_POINT == -128, "the input is not on the scale of the pixels");
_Static_assert(BKNN_A64_INPUT_BYTES == PEER_PIXELS, "the input is not a digit");

static uint8_t arena[BKNN_A64_ARENA_SIZE] __attribute__((aligned(BKNN_A64_ARENA_ALIGNMENT)));
static int8_t input[BKNN_A64_INPUT_BYTES];
static int8_t output[BKNN_A64_OUTPUT_BYTES];

void peer_prepare(const uint8_t pixels[PEER_PIXELS], uint32_t seed)
{
    (void)seed;
    for (unsigned i = 0; i < PEER_PIXELS; i++) {
        input[i] = (int8_t)((int)pixels[i] - 128);
    }
}

int peer_run(void)
{
    bknn_a64_infer(arena, input, output);
    return 0;
}

uint64_t peer_logit(unsigned index)
{
    return (uint64_t)(int64_t)output[index];
}
