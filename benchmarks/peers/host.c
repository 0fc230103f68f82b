/* Reads digits of 784 bytes, writes ten 64-bit words of logits for each; seeds count up from 0. */
#include <stdio.h>

#include "peer.h"

int main(void)
{
    uint8_t pixels[PEER_PIXELS];

    for (uint32_t seed = 0; fread(pixels, 1, sizeof pixels, stdin) == sizeof pixels; seed++) {
        uint64_t logits[PEER_CLASSES];

        peer_prepare(pixels, seed);
        if (peer_run() != 0) {
            return 1;
        }
        for (unsigned i = 0; i < PEER_CLASSES; i++) {
            logits[i] = peer_logit(i);
        }
        if (fwrite(logits, sizeof logits[0], PEER_CLASSES, stdout) != PEER_CLASSES) {
            return 1;
        }
    }
    return 0;
}
