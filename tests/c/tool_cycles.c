/* Drives the cycle model from a list of commands on stdin; see test_tool_cycles.py. */
#include "bnn_cycles.h"

#include <stdio.h>

#define PLACES 256u

static bnn_cycles_t model;
static bnn_op_t places[PLACES];
static size_t used;

static bnn_op_t *place_of(uint32_t pc, const uint16_t *code, size_t halfwords)
{
    for (size_t i = 0u; i < used; i++) {
        if (places[i].pc == pc) {
            return &places[i];
        }
    }
    places[used].pc = pc;
    bnn_decode(&places[used], code, halfwords);
    return &places[used++];
}

/* Every 16-bit instruction, and pseudorandom 32-bit ones: nothing may overflow. */
static unsigned decode_all(void)
{
    unsigned jumps = 0u;
    uint32_t state = 1u;
    bnn_op_t op = {.pc = 0u};

    for (uint32_t first = 0u; first < 0xe800u; first++) {
        const uint16_t code = (uint16_t)first;
        bnn_decode(&op, &code, 1u);
        jumps += op.jumps;
    }
    for (uint32_t i = 0u; i < 1000000u; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        const uint16_t code[2] = {(uint16_t)(0xe800u + (state >> 16) % 0x1800u), (uint16_t)state};
        bnn_decode(&op, code, 2u);
        jumps += op.jumps;
    }
    return jumps;
}

int main(void)
{
    bnn_flash_t flash = {.line_shift = 4u};
    unsigned a, b, c, d, e, f, g;
    char command;

    while (scanf(" %c", &command) == 1) {
        switch (command) {
        case 'f': /* flash of the next model */
            if (scanf("%x %x %u %u %u %u %u", &a, &b, &c, &d, &e, &f, &g) != 7) {
                return 1;
            }
            flash = (bnn_flash_t){a, b, c, d, e, f, g != 0u};
            break;
        case 'c': /* a new model of a core */
            if (scanf("%u", &a) != 1) {
                return 1;
            }
            bnn_cycles_init(&model, a, &flash);
            used = 0u;
            break;
        case 'x':   /* execute: address, size in halfwords, code */
        case 'd': { /* only decode */
            if (scanf("%x %u %x %x", &a, &b, &c, &d) != 4 || b < 1u || b > 2u || used == PLACES) {
                return 1;
            }
            const uint16_t code[2] = {(uint16_t)c, (uint16_t)d};
            if (command == 'x') {
                bnn_cycles_step(&model, place_of(a, code, b));
                break;
            }
            bnn_op_t op = {.pc = a};
            bnn_decode(&op, code, b);
            printf("%u %u %d\n", (unsigned)op.kind, (unsigned)op.words, op.jumps);
            break;
        }
        case 'r': /* read a place in memory */
            if (scanf("%x", &a) != 1) {
                return 1;
            }
            bnn_cycles_read(&model, a);
            break;
        case '=':
            printf("%llu %llu %llu\n", (unsigned long long)model.instructions,
                   (unsigned long long)model.cycles, (unsigned long long)model.stalls);
            break;
        case 'z':
            printf("%u\n", decode_all());
            break;
        default:
            return 1;
        }
    }
    return 0;
}
