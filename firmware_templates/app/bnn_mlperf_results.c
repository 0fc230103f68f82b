#include "bnn_small.h" /* before any code */

#include "bnn_mlperf_internal.h"

#include "bnn_mlperf_model.h"
#include "bnn_model.h"

#define WEIGHT_ONE (1u << 30)
#define FRACTION_BITS 20u

/* The distance of a class's logit from the largest one. */
static uint64_t distance(const bnn_ctx_t *context, unsigned index, int64_t largest)
{
    return (uint64_t)largest - (uint64_t)bnn_logit(context, index);
}

/*
 * e to the power of -(distance * scale of the logits), WEIGHT_ONE for 1: as
 * 2^-y, y with FRACTION_BITS, one factor for each of its bits.  Integers only,
 * so that every board and every host get the same digits.
 */
BNN_CALLED static uint64_t weight(uint64_t away)
{
    /* 2^(-1/2), 2^(-1/4), ... with 32 bits */
    static const uint32_t factors[FRACTION_BITS] = {
        0xB504F334u, 0xD744FCCBu, 0xEAC0C6E8u, 0xF5257D15u, 0xFA83B2DBu,
        0xFD3E0C0Du, 0xFE9E115Cu, 0xFF4ECB59u, 0xFFA75652u, 0xFFD3A752u,
        0xFFE9D2B3u, 0xFFF4E91Cu, 0xFFFA747Fu, 0xFFFD3A3Bu, 0xFFFE9D1Du,
        0xFFFF4E8Eu, 0xFFFFA747u, 0xFFFFD3A3u, 0xFFFFE9D2u, 0xFFFFF4E9u,
    };
    uint64_t result = WEIGHT_ONE;
    uint64_t y;

    away >>= BNN_MLPERF_DOWN;
    if (away > BNN_MLPERF_LIMIT) {
        return 0;
    }
    y = (away * BNN_MLPERF_SCALE) >> BNN_MLPERF_SHIFT;
    for (unsigned i = 0; i < FRACTION_BITS; i++) {
        if ((y >> (FRACTION_BITS - 1u - i) & 1u) != 0) {
            result = (result * factors[i]) >> 32;
        }
    }
    return result >> (y >> FRACTION_BITS);
}

BNN_CALLED static uint64_t millionths(uint64_t part, uint64_t sum)
{
    uint64_t rest;

    return bnn_divide(part * BNN_MILLION, sum, &rest);
}

/*
 * Probabilities, cut after six decimals.  A class before the label is printed as
 * less than it even where six decimals cannot tell them apart, so that the first
 * of the largest numbers is the label.
 */
void bnn_put_results(const bnn_ctx_t *context)
{
    unsigned label = (unsigned)bnn_argmax(context);
    int64_t largest = bnn_logit(context, label);
    uint64_t sum = 0;
    uint64_t best;

    for (unsigned i = 0; i < (unsigned)bnn_model.classes; i++) {
        sum += weight(distance(context, i, largest));
    }
    best = millionths(WEIGHT_ONE, sum);
    bnn_put_text("m-results-[");
    for (unsigned i = 0; i < (unsigned)bnn_model.classes; i++) {
        uint64_t share = millionths(weight(distance(context, i, largest)), sum);

        if (i < label && share >= best) {
            share = best - 1u;
        }
        bnn_put_text(i > 0 ? "," : "");
        bnn_put_text(share < BNN_MILLION ? "0." : "1.");
        bnn_put_number(share < BNN_MILLION ? share : 0u, 6);
    }
    bnn_put_text("]\r\n");
}

void bnn_put_logits(const bnn_ctx_t *context)
{
    bnn_put_text("m-logits-[");
    for (unsigned i = 0; i < (unsigned)bnn_model.classes; i++) {
        int64_t logit = bnn_logit(context, i);

        bnn_put_text(i > 0 ? "," : "");
        bnn_put_text(logit < 0 ? "-" : "");
        bnn_put_number(logit < 0 ? 0u - (uint64_t)logit : (uint64_t)logit, 1);
    }
    bnn_put_text("]\r\n");
}
