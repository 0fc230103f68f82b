/* SipHash-2-4: a keyed hash of 64 bits (Aumasson and Bernstein, INDOCRYPT 2012). */
#ifndef BNN_SIPHASH_H
#define BNN_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#define BNN_SIPHASH_KEY_BYTES 16u

/* The hash of `size` bytes; no branch and no address depends on the key or on the bytes. */
uint64_t bnn_siphash(const uint8_t key[BNN_SIPHASH_KEY_BYTES], const uint8_t *data, size_t size);

#endif
