/*
 * A model of the cycles that Cortex-M cores take, for counting under an emulator.
 *
 * It runs on the host, inside QEMU (bnn_count_plugin.c) or a test.  What it
 * counts is MODELLED: tables of Arm's technical reference manuals, and a flash
 * with wait states.  docs/CYCLES.md says what it leaves out and how far off it
 * may be.
 */
#ifndef BNN_CYCLES_H
#define BNN_CYCLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BNN_API __attribute__((visibility("default")))

/* What an instruction is, as far as its time is concerned. */
typedef enum bnn_kind {
    BNN_ALU = 0,
    BNN_MUL,       /* 32-bit product */
    BNN_MLA,       /* with addition */
    BNN_MULL,      /* 64-bit product */
    BNN_MLAL,      /* with addition */
    BNN_DIV,
    BNN_LOAD,      /* one register */
    BNN_STORE,     /* one register; address from a register and a constant */
    BNN_STORE_REG, /* one register; address from two registers */
    BNN_MANY_IN,   /* LDM, POP, LDRD, VLDM, VLDR of a double */
    BNN_MANY_OUT,  /* STM, PUSH, STRD, VSTM, VSTR of a double */
    BNN_BRANCH,
    BNN_CALL,      /* BL */
    BNN_TABLE,     /* TBB, TBH */
    BNN_FP,        /* arithmetic of one cycle */
    BNN_FP_MLA,
    BNN_FP_DIV,    /* and square roots */
    BNN_FP_LOAD,   /* VLDR of a single */
    BNN_FP_STORE,  /* VSTR of a single */
    BNN_FP_MOVE,   /* between registers, one word */
    BNN_FP_MOVE2,  /* between registers, two words */
    BNN_SYSTEM     /* MRS, MSR, barriers */
} bnn_kind_t;

/* One instruction, decoded once. */
typedef struct bnn_op {
    uint32_t pc;
    uint32_t size;    /* bytes: 2 or 4 */
    uint32_t kind;    /* bnn_kind_t */
    uint32_t words;   /* moved by BNN_MANY_* */
    uint32_t reads;   /* core registers, as bits; those of the address too */
    uint32_t address; /* core registers that an address is made of */
    uint32_t writes;
    uint32_t reads_fp; /* S0 to S31, as bits */
    uint32_t writes_fp;
    bool jumps;   /* may go on elsewhere than behind itself */
    uint32_t hint; /* where it went last, for branch prediction */
} bnn_op_t;

typedef enum bnn_core {
    BNN_CORE_M0 = 0,
    BNN_CORE_M3 = 3,
    BNN_CORE_M4 = 4,
    BNN_CORE_M7 = 7,
    BNN_CORE_NONE = 255 /* counts instructions alone */
} bnn_core_t;

#define BNN_FLASH_LINES 256u

typedef struct bnn_flash {
    uint32_t origin, end;
    uint32_t wait;       /* wait states: cycles of a read, less one */
    uint32_t line_shift; /* log2 of the bytes that one read brings */
    uint32_t code_lines; /* of the instruction cache, 0 for none */
    uint32_t data_lines; /* of the data cache, 0 for none */
    bool prefetch;       /* reads the next line of code while this one runs */
} bnn_flash_t;

typedef struct bnn_lines {
    uint32_t line[BNN_FLASH_LINES];
    uint64_t used[BNN_FLASH_LINES];
} bnn_lines_t;

typedef struct bnn_cycles {
    bnn_core_t core;
    bnn_flash_t flash;
    uint64_t instructions;
    uint64_t cycles; /* of the core */
    uint64_t stalls; /* waits for the flash, on top */
    bnn_op_t *before;
    bool open;        /* M7: the last one issued alone; the next may join it */
    bnn_lines_t code, data;
    uint64_t uses;
    uint32_t line;    /* of code, that is being executed */
    uint64_t entered; /* cycles and stalls when that began */
} bnn_cycles_t;

/* Decode the instruction of one or two halfwords; fills all but pc. */
BNN_API void bnn_decode(bnn_op_t *op, const uint16_t *code, size_t halfwords);

BNN_API void bnn_cycles_init(bnn_cycles_t *m, uint32_t core, const bnn_flash_t *flash);

/* Before an instruction is executed. */
BNN_API void bnn_cycles_step(bnn_cycles_t *m, bnn_op_t *op);

/* After one has read a place in memory. */
BNN_API void bnn_cycles_read(bnn_cycles_t *m, uint32_t address);

#endif
