/*
 * What a network looks like to the rig, whoever generated it. Each peer has one
 * small adapter that implements this.
 */
#ifndef PEER_H
#define PEER_H

#include <stdint.h>

#define PEER_PIXELS 784u
#define PEER_CLASSES 10u

/* Turns a digit into what the network takes. Not counted. */
void peer_prepare(const uint8_t pixels[PEER_PIXELS], uint32_t seed);

/* One inference: this, and nothing else, is counted. 0 if it worked. */
int peer_run(void);

/* Bits of a logit as the network computed it: an integer, or a float's bits. Not counted. */
uint64_t peer_logit(unsigned index);

#endif
