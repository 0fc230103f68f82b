/*
 * For files that run between inferences: small code is worth more there than
 * fast code, which the kernels' -O3 would make.  A kilobyte in all.
 */
#ifndef BNN_SMALL_H
#define BNN_SMALL_H

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os")
#endif

#endif
