/*
 * Thumb instructions by the bits of their opcodes: ARMv7-M Architecture
 * Reference Manual (DDI 0403), chapter A5; section numbers below are its.
 */
#include "bnn_cycles.h"

#define PC 15u
#define BIT(n) (1u << (n))

/* Bits [high:low] of a halfword. */
static uint32_t field(uint32_t code, unsigned high, unsigned low)
{
    return (code >> low) & (BIT(high - low + 1u) - 1u);
}

static uint32_t count_bits(uint32_t bits)
{
    uint32_t count = 0u;
    for (; bits != 0u; bits &= bits - 1u) {
        count++;
    }
    return count;
}

static void writes(bnn_op_t *op, uint32_t rd)
{
    op->writes |= BIT(rd);
    op->jumps = op->jumps || rd == PC;
}

static void from(bnn_op_t *op, uint32_t base)
{
    op->address |= BIT(base);
    op->reads |= BIT(base);
}

static void load_or_store(bnn_op_t *op, bool load, uint32_t rt)
{
    op->kind = load ? BNN_LOAD : BNN_STORE;
    if (load) {
        writes(op, rt);
    } else {
        op->reads |= BIT(rt);
    }
}

static void many(bnn_op_t *op, bool load, uint32_t registers)
{
    op->kind = load ? BNN_MANY_IN : BNN_MANY_OUT;
    op->words = count_bits(registers);
    if (load) {
        op->writes |= registers;
        op->jumps = (registers & BIT(PC)) != 0u;
    } else {
        op->reads |= registers;
    }
}

/* A5.2.5 */
static void decode_misc(bnn_op_t *op, uint32_t code)
{
    const uint32_t rd = field(code, 2u, 0u);

    if ((code & 0x0500u) == 0x0100u) { /* CBZ, CBNZ */
        op->kind = BNN_BRANCH;
        op->jumps = true;
        op->reads = BIT(rd);
    } else if ((code & 0x0f00u) == 0x0000u) { /* ADD, SUB of SP */
        op->reads = op->writes = BIT(13);
    } else if ((code & 0x0f00u) == 0x0200u || (code & 0x0f00u) == 0x0a00u) { /* extend, reverse */
        op->reads = BIT(field(code, 5u, 3u));
        op->writes = BIT(rd);
    } else if ((code & 0x0e00u) == 0x0400u || (code & 0x0e00u) == 0x0c00u) { /* PUSH, POP */
        const bool load = (code & 0x0800u) != 0u;
        const uint32_t extra = (code & 0x0100u) != 0u ? BIT(load ? 15u : 14u) : 0u;
        many(op, load, (code & 0xffu) | extra);
        from(op, 13u);
        op->writes |= BIT(13);
    } else if ((code & 0x0fe0u) == 0x0660u) { /* CPS */
        op->kind = BNN_SYSTEM;
    }
}

/* A5.2.1 to A5.2.3 */
static void decode_16_alu(bnn_op_t *op, uint32_t code)
{
    const uint32_t low = field(code, 2u, 0u);
    const uint32_t next = field(code, 5u, 3u);
    const uint32_t group = code >> 11;

    if (group < 4u) { /* shifts; ADD, SUB of registers or three bits */
        op->reads = BIT(next);
        if (group == 3u && (code & 0x0400u) == 0u) {
            op->reads |= BIT(field(code, 8u, 6u));
        }
        op->writes = BIT(low);
    } else if (group < 8u) { /* MOV, CMP, ADD, SUB of eight bits */
        const uint32_t rd = BIT(field(code, 10u, 8u));
        op->reads = group == 4u ? 0u : rd;
        op->writes = group == 5u ? 0u : rd;
    } else if ((code & 0x0400u) == 0u) { /* data processing */
        const uint32_t opcode = field(code, 9u, 6u);
        const bool one = opcode == 9u || opcode == 15u;             /* RSB, MVN */
        const bool test = opcode == 8u || opcode == 10u || opcode == 11u;
        op->kind = opcode == 13u ? BNN_MUL : BNN_ALU;
        op->reads = BIT(next) | (one ? 0u : BIT(low));
        op->writes = test ? 0u : BIT(low);
    } else { /* high registers, BX, BLX */
        const uint32_t opcode = field(code, 9u, 8u);
        const uint32_t rd = low | (code & 0x80u) >> 4;
        op->reads = BIT(field(code, 6u, 3u));
        if (opcode == 3u) {
            op->kind = BNN_BRANCH;
            op->jumps = true;
            op->writes = (code & 0x80u) != 0u ? BIT(14) : 0u;
        } else {
            op->reads |= opcode == 2u ? 0u : BIT(rd);
            if (opcode != 1u) {
                writes(op, rd);
                op->kind = op->jumps ? BNN_BRANCH : BNN_ALU;
            }
        }
    }
}

static void decode_16(bnn_op_t *op, uint32_t code)
{
    const uint32_t low = field(code, 2u, 0u);
    const uint32_t next = field(code, 5u, 3u);
    const uint32_t high = field(code, 10u, 8u);
    const bool bit11 = (code & 0x0800u) != 0u;

    switch (code >> 12) {
    case 4u:
        if (bit11) { /* LDR from PC */
            load_or_store(op, true, high);
            break;
        }
        decode_16_alu(op, code);
        break;
    case 5u: /* two registers */
        load_or_store(op, field(code, 11u, 9u) >= 3u, low);
        from(op, next);
        from(op, field(code, 8u, 6u));
        op->kind = op->kind == BNN_STORE ? BNN_STORE_REG : op->kind;
        break;
    case 6u:
    case 7u:
    case 8u:
        load_or_store(op, bit11, low);
        from(op, next);
        break;
    case 9u:
        load_or_store(op, bit11, high);
        from(op, 13u);
        break;
    case 10u: /* ADR, ADD of SP */
        op->reads = bit11 ? BIT(13) : 0u;
        op->writes = BIT(high);
        break;
    case 11u:
        decode_misc(op, code);
        break;
    case 12u: /* STM, LDM */
        many(op, bit11, code & 0xffu);
        from(op, high);
        op->writes |= BIT(high);
        break;
    case 13u:
    case 14u:
        op->kind = BNN_BRANCH;
        op->jumps = true;
        break;
    default:
        decode_16_alu(op, code);
        break;
    }
}

/* S registers of an operand: x is its four bits, extra its fifth. */
static uint32_t fp_register(bool wide, uint32_t x, uint32_t extra)
{
    return wide ? 3u << (2u * x) : BIT(2u * x + extra);
}

/* A6.4 to A6.8: floating point, coprocessors 10 and 11. */
static void decode_fp(bnn_op_t *op, uint32_t first, uint32_t second)
{
    const bool wide = (second & 0x0100u) != 0u;
    const bool bit4 = (first & 0x10u) != 0u;
    const uint32_t d = fp_register(wide, field(second, 15u, 12u), field(first, 6u, 6u));
    const uint32_t n = fp_register(wide, first & 15u, field(second, 7u, 7u));
    const uint32_t m = fp_register(wide, second & 15u, field(second, 5u, 5u));
    const uint32_t rt = BIT(field(second, 15u, 12u));

    if ((first & 0xffe0u) == 0xec40u) { /* two core registers */
        const uint32_t both = rt | BIT(first & 15u);
        op->kind = BNN_FP_MOVE2;
        *(bit4 ? &op->writes : &op->reads) = both;
        *(bit4 ? &op->reads_fp : &op->writes_fp) = wide ? m : m | m << 1;
    } else if ((first & 0xfe00u) == 0xec00u) { /* loads and stores */
        const bool one = (first & 0x0120u) == 0x0100u;
        from(op, first & 15u);
        op->words = one ? 2u : second & 0xffu;
        op->kind = bit4 ? BNN_MANY_IN : BNN_MANY_OUT;
        if (one && !wide) {
            op->kind = bit4 ? BNN_FP_LOAD : BNN_FP_STORE;
        }
        *(bit4 ? &op->writes_fp : &op->reads_fp) = d;
        op->writes |= (first & 0x20u) != 0u ? BIT(first & 15u) : 0u;
    } else if ((second & 0x10u) != 0u) { /* one core register */
        op->kind = BNN_FP_MOVE;
        if ((first & 0xe0u) == 0xe0u) { /* VMRS, VMSR */
            op->writes = bit4 && rt != BIT(PC) ? rt : 0u;
        } else {
            *(bit4 ? &op->writes : &op->reads) = rt;
            *(bit4 ? &op->reads_fp : &op->writes_fp) = n;
        }
    } else {
        const uint32_t opcode = field(first, 7u, 4u) & 11u;
        const bool other = opcode == 11u;
        const uint32_t two = first & 15u;
        op->kind = opcode < 2u || opcode == 9u || opcode == 10u ? BNN_FP_MLA : BNN_FP;
        if (opcode == 8u || (other && two == 1u && (second & 0xc0u) == 0xc0u)) {
            op->kind = BNN_FP_DIV;
        } else if (other && (second & 0x40u) == 0u) {
            op->kind = BNN_FP_MOVE; /* VMOV of a constant */
        } else if (other && two == 0u && (second & 0x80u) == 0u) {
            op->kind = BNN_FP_MOVE; /* VMOV of a register */
        }
        op->reads_fp = other ? m : n | m;
        if (op->kind == BNN_FP_MLA) {
            op->reads_fp |= d;
        }
        if (other && (two == 4u || two == 5u)) { /* VCMP */
            op->reads_fp |= d;
        } else {
            op->writes_fp = d;
        }
    }
}

/* A5.3.7 to A5.3.10 */
static void decode_single(bnn_op_t *op, uint32_t first, uint32_t second)
{
    const bool load = (first & 0x10u) != 0u;
    const uint32_t rt = field(second, 15u, 12u);
    const uint32_t rn = first & 15u;
    const bool word = (first & 0x60u) == 0x40u;

    if (load && rt == PC && !word) {
        return; /* PLD, PLI: a hint */
    }
    load_or_store(op, load, rt);
    if (rn == PC) {
        return; /* relative to PC: known early */
    }
    from(op, rn);
    if ((first & 0x80u) != 0u) {
        return; /* twelve bits */
    }
    if ((second & 0x0800u) != 0u) {
        op->writes |= (second & 0x0100u) != 0u ? BIT(rn) : 0u;
        return;
    }
    from(op, second & 15u);
    op->kind = load ? BNN_LOAD : BNN_STORE_REG;
}

/* A5.3.5, A5.3.6 */
static void decode_multiple(bnn_op_t *op, uint32_t first, uint32_t second)
{
    const bool load = (first & 0x10u) != 0u;
    const uint32_t rn = first & 15u;
    const uint32_t rt = BIT(field(second, 15u, 12u));

    from(op, rn);
    if ((first & 0x40u) == 0u) { /* LDM, STM */
        many(op, load, second);
        op->writes |= (first & 0x20u) != 0u ? BIT(rn) : 0u;
    } else if ((first & 0xfff0u) == 0xe8d0u && (second & 0xffe0u) == 0xf000u) {
        op->kind = BNN_TABLE;
        op->jumps = true;
        from(op, second & 15u);
    } else if ((first & 0x0120u) == 0u) { /* exclusive */
        load_or_store(op, load, field(second, 15u, 12u));
    } else { /* LDRD, STRD */
        many(op, load, rt | BIT(field(second, 11u, 8u)));
        op->words = 2u;
        op->writes |= (first & 0x20u) != 0u ? BIT(rn) : 0u;
    }
}

/* A5.3.14 to A5.3.16 */
static void decode_product(bnn_op_t *op, uint32_t first, uint32_t second)
{
    const uint32_t rd = BIT(field(second, 11u, 8u));
    const uint32_t ra = field(second, 15u, 12u);
    const uint32_t opcode = field(first, 6u, 4u);

    op->reads = BIT(first & 15u) | BIT(second & 15u);
    op->writes = rd;
    if ((first & 0x80u) == 0u) {
        op->kind = ra == PC ? BNN_MUL : BNN_MLA;
        op->reads |= ra == PC ? 0u : BIT(ra);
    } else if (opcode == 1u || opcode == 3u) {
        op->kind = BNN_DIV;
    } else {
        op->kind = opcode >= 4u ? BNN_MLAL : BNN_MULL;
        op->writes |= BIT(ra);
        op->reads |= opcode >= 4u ? rd | BIT(ra) : 0u;
    }
}

static void decode_32(bnn_op_t *op, uint32_t first, uint32_t second)
{
    const uint32_t rd = field(second, 11u, 8u);
    const uint32_t rn = first & 15u;

    if ((first & 0xec00u) == 0xec00u) {
        decode_fp(op, first, second);
    } else if ((first & 0xfe00u) == 0xe800u) {
        decode_multiple(op, first, second);
    } else if ((first & 0xf800u) == 0xf000u && (second & 0x8000u) != 0u) { /* A5.3.4 */
        const bool always = (second & 0x1000u) != 0u;
        op->jumps = always || (first & 0x0380u) != 0x0380u;
        op->kind = op->jumps ? BNN_BRANCH : BNN_SYSTEM;
        if ((second & 0x5000u) == 0x5000u) {
            op->kind = BNN_CALL;
            op->writes = BIT(14);
        } else if (!op->jumps && (first & 0xfff0u) == 0xf3a0u) {
            op->kind = BNN_ALU; /* NOP.W and other hints */
        } else if (!op->jumps && (first & 0xffe0u) == 0xf3e0u) {
            op->writes = BIT(rd); /* MRS */
        }
    } else if ((first & 0xfe00u) == 0xf800u) {
        decode_single(op, first, second);
    } else if ((first & 0xff00u) == 0xfb00u) {
        decode_product(op, first, second);
    } else { /* data processing: A5.3.1, A5.3.3, A5.3.11 to A5.3.13 */
        const bool immediate = (first & 0xf800u) == 0xf000u;
        op->reads = rn == PC ? 0u : BIT(rn);
        op->reads |= immediate ? 0u : BIT(second & 15u);
        op->writes = rd == PC ? 0u : BIT(rd);
        if ((first & 0xfb70u) == 0xf240u) { /* MOVW, MOVT: four bits of the constant */
            op->reads = 0u;
        }
        if ((first & 0xfbf0u) == 0xf2c0u || (first & 0xffe0u) == 0xf360u) {
            op->reads |= BIT(rd); /* MOVT, BFI keep a part of it */
        }
    }
}

void bnn_decode(bnn_op_t *op, const uint16_t *code, size_t halfwords)
{
    const uint32_t pc = op->pc;

    *op = (bnn_op_t){.pc = pc, .size = 2u * (uint32_t)halfwords, .kind = BNN_ALU};
    if (halfwords == 2u) {
        decode_32(op, code[0], code[1]);
    } else {
        decode_16(op, code[0]);
    }
}
