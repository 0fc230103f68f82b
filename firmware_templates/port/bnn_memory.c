/*
 * The four functions a C compiler may call on its own, for builds without libc.
 *
 * Compilers turn a loop that copies or fills into a call to memcpy or memset,
 * even inside memcpy and memset.  KEEP_LOOP, an empty statement that they must
 * not look through, prevents that in gcc and clang alike.
 */
#include <stddef.h>
#include <stdint.h>

#if !defined(__STDC_HOSTED__) || __STDC_HOSTED__ == 0

#define KEEP_LOOP() __asm__ volatile("")
#define WORD sizeof(uint32_t)

/* Words read through this type may alias anything. */
typedef uint32_t __attribute__((may_alias)) word_t;

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *left, const void *right, size_t size);

static int aligned(const void *left, const void *right)
{
    return (((uintptr_t)left | (uintptr_t)right) % WORD) == 0u;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    unsigned char *out = to;
    const unsigned char *in = from;
    if (aligned(to, from)) {
        for (; size >= WORD; size -= WORD) {
            *(word_t *)(void *)out = *(const word_t *)(const void *)in;
            out += WORD;
            in += WORD;
            KEEP_LOOP();
        }
    }
    for (; size > 0u; size--) {
        *out++ = *in++;
        KEEP_LOOP();
    }
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    unsigned char *out = to;
    const unsigned char *in = from;
    /* Forwards is safe unless the target starts inside the source. */
    if ((uintptr_t)out - (uintptr_t)in >= size) {
        for (; size > 0u; size--) {
            *out++ = *in++;
            KEEP_LOOP();
        }
    } else {
        while (size > 0u) {
            size--;
            out[size] = in[size];
            KEEP_LOOP();
        }
    }
    return to;
}

void *memset(void *to, int value, size_t size)
{
    unsigned char *out = to;
    const unsigned char byte = (unsigned char)value;
    if ((uintptr_t)to % WORD == 0u) {
        const uint32_t word = 0x01010101u * byte;
        for (; size >= WORD; size -= WORD) {
            *(word_t *)(void *)out = word;
            out += WORD;
            KEEP_LOOP();
        }
    }
    for (; size > 0u; size--) {
        *out++ = byte;
        KEEP_LOOP();
    }
    return to;
}

int memcmp(const void *left, const void *right, size_t size)
{
    const unsigned char *a = left;
    const unsigned char *b = right;
    for (; size > 0u; size--) {
        if (*a != *b) {
            return (int)*a - (int)*b;
        }
        a++;
        b++;
        KEEP_LOOP();
    }
    return 0;
}

#else
/* A hosted build has a libc; an empty translation unit is not C99. */
typedef int bnn_memory_of_libc_t;
#endif
