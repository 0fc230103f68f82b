/* What must hold whatever comes in; a violation stops the fuzzer like a sanitizer's finding. */
#ifndef FUZZ_CHECK_H
#define FUZZ_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define FUZZ_CHECK(condition, ...)                                        \
    do {                                                                  \
        if (!(condition)) {                                               \
            fprintf(stderr, "%s:%d: broken: ", __FILE__, __LINE__);       \
            fprintf(stderr, __VA_ARGS__);                                 \
            fprintf(stderr, "\n");                                        \
            abort();                                                      \
        }                                                                 \
    } while (0)

#endif
