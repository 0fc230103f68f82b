/*
 * The cycles of Cortex-M0, M3, M4 and M7, instruction by instruction.
 *
 * Sources: DDI 0432 (Cortex-M0) table 3-1; DDI 0337 (M3) and DDI 0439 (M4)
 * tables 3-1 and 7-1 with the notes on load and store timings below them.  Arm
 * publishes no such table for the M7: what stands here follows its description
 * as a core that issues up to two instructions in order, and is rough.
 */
#include "bnn_cycles.h"

#include <string.h>

#define NO_LINE 0xffffffffu

/* Cycles to refill the pipeline: "P" of the manuals, 1 to 3. */
#define REFILL 2u
/* Loads of PC and table branches block: at least 5 and 6 cycles as a whole. */
#define REFILL_LOADED 3u
/* M7: a branch that went elsewhere than last time. */
#define M7_MISPREDICTED 8u
/* The manuals give 2 to 12 cycles for a division, by its operands. */
#define DIVISION 7u

static bool is(const bnn_op_t *op, bnn_kind_t kind)
{
    return op != NULL && op->kind == (uint32_t)kind;
}

static bool went_elsewhere(const bnn_op_t *before, const bnn_op_t *op)
{
    return before != NULL && before->jumps && op->pc != before->pc + before->size;
}

/* DDI 0432, table 3-1; multiplications take one cycle on the cores that have that option. */
static uint32_t cycles_m0(const bnn_op_t *op)
{
    switch ((bnn_kind_t)op->kind) {
    case BNN_LOAD:
    case BNN_STORE:
    case BNN_STORE_REG:
        return 2u;
    case BNN_MANY_IN:
    case BNN_MANY_OUT:
        return 1u + op->words;
    case BNN_CALL:
        return 2u; /* two more where it goes */
    case BNN_SYSTEM:
        return 4u;
    default:
        return 1u;
    }
}

/* Does this load or store follow a load whose address phase it may overlap? */
static bool pipelined(const bnn_op_t *before, const bnn_op_t *op)
{
    return is(before, BNN_LOAD) && !before->jumps && (before->writes & op->address) == 0u;
}

static uint32_t cycles_m4(const bnn_op_t *before, const bnn_op_t *op)
{
    switch ((bnn_kind_t)op->kind) {
    case BNN_LOAD:
    case BNN_STORE_REG:
        return pipelined(before, op) ? 1u : 2u;
    case BNN_MANY_IN:
    case BNN_MANY_OUT:
        return 1u + op->words;
    case BNN_TABLE:
        return 3u;
    case BNN_DIV:
        return DIVISION;
    case BNN_FP_LOAD:
    case BNN_FP_STORE:
    case BNN_FP_MOVE2:
    case BNN_SYSTEM:
        return 2u;
    case BNN_FP_MLA:
        return 3u;
    case BNN_FP_DIV:
        return 14u;
    default:
        return 1u;
    }
}

/* Where the M3's multiplier is slower than the M4's; 3 to 5 and 4 to 7 by the operands. */
static uint32_t more_on_m3(const bnn_op_t *op)
{
    switch ((bnn_kind_t)op->kind) {
    case BNN_MLA:
        return 1u;
    case BNN_MULL:
        return 3u;
    case BNN_MLAL:
        return 4u;
    default:
        return 0u;
    }
}

/* What an instruction waits for because of the one before. */
static uint32_t stall_m4(const bnn_op_t *before, const bnn_op_t *op)
{
    if (before == NULL) {
        return 0u;
    }
    const bool computes = before->kind <= (uint32_t)BNN_DIV;
    const bool floats = is(before, BNN_FP) || is(before, BNN_FP_MLA) || is(before, BNN_FP_DIV);
    /* No forwarding from arithmetic to an address, nor from floating point on. */
    if (computes && (before->writes & op->address) != 0u) {
        return 1u;
    }
    return floats && (before->writes_fp & op->reads_fp) != 0u ? 1u : 0u;
}

static uint32_t jump_m4(const bnn_op_t *before, const bnn_op_t *op)
{
    const bool loaded = is(before, BNN_TABLE) || is(before, BNN_LOAD);
    /* A wide instruction across two words needs two fetches before it is whole. */
    const bool across = op->size == 4u && (op->pc & 3u) != 0u;

    return (loaded ? REFILL_LOADED : REFILL) + (across ? 1u : 0u);
}

static bool is_memory(const bnn_op_t *op)
{
    return op->address != 0u || is(op, BNN_LOAD) || is(op, BNN_STORE);
}

static bool is_float(const bnn_op_t *op)
{
    return op->kind >= (uint32_t)BNN_FP && op->kind <= (uint32_t)BNN_FP_DIV;
}

static bool is_product(const bnn_op_t *op)
{
    return op->kind >= (uint32_t)BNN_MUL && op->kind <= (uint32_t)BNN_DIV;
}

static bool needs(const bnn_op_t *op, const bnn_op_t *before)
{
    return (before->writes & op->reads) != 0u || (before->writes_fp & op->reads_fp) != 0u;
}

/* May both issue in one cycle on a Cortex-M7? */
static bool pair_m7(const bnn_op_t *before, const bnn_op_t *op)
{
    return !needs(op, before) && !(is_memory(before) && is_memory(op)) &&
           !(is_float(before) && is_float(op)) && !(is_product(before) && is_product(op)) &&
           !(before->jumps && op->jumps) && (before->writes & op->writes) == 0u &&
           op->kind != (uint32_t)BNN_SYSTEM;
}

static uint32_t alone_m7(const bnn_op_t *op)
{
    switch ((bnn_kind_t)op->kind) {
    case BNN_MANY_IN:
    case BNN_MANY_OUT:
        return (op->words + 1u) / 2u; /* the bus is 64 bits wide */
    case BNN_TABLE:
        return 3u;
    case BNN_DIV:
        return DIVISION;
    case BNN_FP_DIV:
        return 14u;
    case BNN_SYSTEM:
        return 2u;
    default:
        return 1u;
    }
}

static uint32_t cycles_m7(bnn_cycles_t *m, bnn_op_t *op)
{
    bnn_op_t *before = m->before;
    uint32_t cycles = 0u;

    if (before != NULL && before->jumps) {
        cycles = before->hint != 0u && before->hint != op->pc ? M7_MISPREDICTED : 0u;
        before->hint = op->pc;
        if (went_elsewhere(before, op)) {
            m->open = false;
        }
    }
    if (m->open && pair_m7(before, op)) {
        m->open = false;
        return cycles;
    }
    /* Loads, products and floating point have their results one cycle later. */
    if (before != NULL && needs(op, before) &&
        (is(before, BNN_LOAD) || is_product(before) || before->kind >= (uint32_t)BNN_FP)) {
        cycles++;
    }
    const uint32_t alone = alone_m7(op);
    m->open = alone == 1u;
    return cycles + alone;
}

static bool lookup(bnn_lines_t *lines, uint32_t count, uint32_t line, uint64_t now, uint32_t *oldest)
{
    *oldest = 0u;
    for (uint32_t i = 0u; i < count; i++) {
        if (lines->line[i] == line) {
            lines->used[i] = now;
            return true;
        }
        if (lines->used[i] < lines->used[*oldest]) {
            *oldest = i;
        }
    }
    return false;
}

static void keep(bnn_lines_t *lines, uint32_t count, uint32_t at, uint32_t line, uint64_t now)
{
    if (count != 0u) {
        lines->line[at] = line;
        lines->used[at] = now;
    }
}

/*
 * The line of code that an instruction lies in.  The next one is prefetched
 * from the moment that this one is entered; only what the core had to wait for
 * goes into the cache (RM0390, 3.4.2).
 */
static void fetch(bnn_cycles_t *m, uint32_t line)
{
    const bnn_flash_t *flash = &m->flash;
    uint32_t oldest;

    if (line == m->line) {
        return;
    }
    if (!lookup(&m->code, flash->code_lines, line, ++m->uses, &oldest)) {
        uint64_t wait = flash->wait;
        if (flash->prefetch && line == m->line + 1u) {
            const uint64_t since = m->cycles + m->stalls - m->entered;
            wait = since < wait ? wait - since : 0u;
        }
        m->stalls += wait;
        if (wait != 0u) {
            keep(&m->code, flash->code_lines, oldest, line, m->uses);
        }
    }
    m->line = line;
    m->entered = m->cycles + m->stalls;
}

void bnn_cycles_init(bnn_cycles_t *m, uint32_t core, const bnn_flash_t *flash)
{
    memset(m, 0, sizeof *m);
    m->core = (bnn_core_t)core;
    m->flash = *flash;
    m->flash.code_lines %= BNN_FLASH_LINES + 1u;
    m->flash.data_lines %= BNN_FLASH_LINES + 1u;
    m->line = NO_LINE;
    memset(m->code.line, 0xff, sizeof m->code.line);
    memset(m->data.line, 0xff, sizeof m->data.line);
}

void bnn_cycles_step(bnn_cycles_t *m, bnn_op_t *op)
{
    const bnn_op_t *before = m->before;
    const bool jumped = went_elsewhere(before, op);

    m->instructions++;
    switch (m->core) {
    case BNN_CORE_M0:
        m->cycles += cycles_m0(op) + (jumped ? 2u : 0u);
        /* POP of PC: 4 + N. */
        m->cycles += jumped && is(before, BNN_MANY_IN) ? 1u : 0u;
        break;
    case BNN_CORE_M3:
    case BNN_CORE_M4:
        m->cycles += jumped ? jump_m4(before, op) : 0u;
        m->cycles += cycles_m4(before, op) + stall_m4(before, op);
        m->cycles += m->core == BNN_CORE_M3 ? more_on_m3(op) : 0u;
        break;
    case BNN_CORE_M7:
        m->cycles += cycles_m7(m, op);
        break;
    default:
        break;
    }
    m->before = op;
    if (m->flash.wait == 0u) {
        return;
    }
    if (op->pc < m->flash.origin || op->pc >= m->flash.end) {
        m->line = NO_LINE;
        return;
    }
    fetch(m, op->pc >> m->flash.line_shift);
    /* Its second half may lie in the next line. */
    fetch(m, (op->pc + op->size - 1u) >> m->flash.line_shift);
}

void bnn_cycles_read(bnn_cycles_t *m, uint32_t address)
{
    const bnn_flash_t *flash = &m->flash;
    uint32_t oldest;

    if (flash->wait == 0u || address < flash->origin || address >= flash->end) {
        return;
    }
    const uint32_t line = address >> flash->line_shift;
    if (!lookup(&m->data, flash->data_lines, line, ++m->uses, &oldest)) {
        m->stalls += flash->wait;
        keep(&m->data, flash->data_lines, oldest, line, m->uses);
    }
}
