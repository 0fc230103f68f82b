/*
 * A plugin of QEMU that counts executed instructions and models their cycles.
 *
 * At every call of the firmware's bnn_port_ticks(), and of bnn_infer(), it
 * appends a record to an open file: which of the two, how many instructions,
 * modelled cycles and flash stalls there were since the machine started, and how
 * many instructions each function of a given table has executed since the last
 * record.  Who reads them knows the order of those calls, so that each layer of
 * each inference is found again.
 *
 * Options: ticks=ADDRESS, infer=ADDRESS, records=FD, functions=FD (may be
 * absent), core=NUMBER, and the flash: origin, end, wait, line, code, data,
 * prefetch.  All numbers are decimal.
 */
#define _POSIX_C_SOURCE 200809L

#include "bnn_cycles.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- QEMU's plugin interface, as far as it is used: qemu-plugin.h ---- */

/* Version 1: QEMU 6.0 to 8.2; 2: 9.0; 3: from 9.1 on, which all take. */
#ifndef BNN_QEMU_API
#define BNN_QEMU_API 1
#endif

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

enum { CB_NO_REGS = 0, MEM_RW = 3 };

BNN_API int qemu_plugin_version = BNN_QEMU_API;

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*cb)(qemu_plugin_id_t, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t idx);
#if BNN_QEMU_API >= 3
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *dest, size_t len);
#else
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
#endif
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
                                            void (*cb)(unsigned, void *), int flags, void *user);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
                                      void (*cb)(unsigned, qemu_plugin_meminfo_t, uint64_t, void *),
                                      int flags, int rw, void *user);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t info);
BNN_API int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                char **argv);

/* ---- What is counted ---- */

#define MOST_FUNCTIONS 4096u
#define BUCKETS 65536u
/* Kinds of records. */
#define AT_TICKS 1u
#define AT_INFER 2u

typedef struct place {
    bnn_op_t op;
    struct place *next;
    uint16_t code[2];
    uint32_t function; /* its index, or the number of functions */
    uint32_t mark;     /* kind of the record to write, 0 for none */
} place_t;

typedef struct function {
    uint32_t start, end;
} function_t;

static bnn_cycles_t model;
static place_t *buckets[BUCKETS];
static function_t functions[MOST_FUNCTIONS];
static uint64_t executed[MOST_FUNCTIONS + 1u];
static uint32_t function_count;
static uint32_t ticks_at, infer_at;
static int records = -1;

static __attribute__((noreturn)) void stop(const char *what)
{
    /* Half a record would be read as something else: rather none at all. */
    const ssize_t ignored = write(2, what, strlen(what));
    (void)ignored;
    _exit(3);
}

static void write_record(uint64_t kind)
{
    static uint64_t record[5u + 2u * (MOST_FUNCTIONS + 1u)];
    size_t size = 5u;

    record[0] = kind;
    record[1] = model.instructions;
    record[2] = model.cycles;
    record[3] = model.stalls;
    for (uint32_t i = 0u; i <= function_count; i++) {
        if (executed[i] != 0u) {
            record[size++] = i;
            record[size++] = executed[i];
            executed[i] = 0u;
        }
    }
    record[4] = (size - 5u) / 2u;
    size *= sizeof record[0];
    if (write(records, record, size) != (ssize_t)size) {
        stop("bnn_count_plugin: a record could not be written\n");
    }
}

static void on_instruction(unsigned cpu, void *user)
{
    place_t *place = user;

    (void)cpu;
    if (place->mark != 0u) {
        write_record(place->mark);
    }
    executed[place->function]++;
    bnn_cycles_step(&model, &place->op);
}

static void on_access(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void *user)
{
    (void)cpu;
    (void)user;
    if (!qemu_plugin_mem_is_store(info)) {
        bnn_cycles_read(&model, (uint32_t)address);
    }
}

/* The first bytes of an instruction; those that there are. */
static size_t copy_code(const struct qemu_plugin_insn *insn, uint16_t *code, size_t size)
{
    const size_t there = qemu_plugin_insn_size(insn);
    const size_t copied = there < size ? there : size;
#if BNN_QEMU_API >= 3
    return qemu_plugin_insn_data(insn, code, copied);
#else
    memcpy(code, qemu_plugin_insn_data(insn), copied);
    return copied;
#endif
}

/* Functions are sorted and do not overlap. */
static uint32_t function_of(uint32_t pc)
{
    uint32_t low = 0u;
    uint32_t high = function_count;

    while (low < high) {
        const uint32_t middle = (low + high) / 2u;
        if (pc >= functions[middle].end) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low < function_count && pc >= functions[low].start ? low : function_count;
}

static place_t *place_of(uint32_t pc, const uint16_t *code, size_t halfwords)
{
    place_t **bucket = &buckets[(pc >> 1) % BUCKETS];

    for (place_t *place = *bucket; place != NULL; place = place->next) {
        if (place->op.pc == pc && place->op.size == 2u * halfwords && place->code[0] == code[0] &&
            (halfwords == 1u || place->code[1] == code[1])) {
            return place;
        }
    }
    place_t *place = calloc(1u, sizeof *place);
    if (place == NULL) {
        stop("bnn_count_plugin: no memory\n");
    }
    memcpy(place->code, code, 2u * halfwords);
    place->op.pc = pc;
    bnn_decode(&place->op, code, halfwords);
    place->function = function_of(pc);
    place->mark = pc == ticks_at ? AT_TICKS : pc == infer_at ? AT_INFER : 0u;
    place->next = *bucket;
    *bucket = place;
    return place;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    const size_t count = qemu_plugin_tb_n_insns(tb);

    (void)id;
    for (size_t i = 0u; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint16_t code[2] = {0u, 0u};
        const size_t size = copy_code(insn, code, sizeof code);
        /* Not by the size: before the end of a page, QEMU has looked at the next one too. */
        const size_t halfwords = code[0] >= 0xe800u ? 2u : 1u;
        if (size < 2u * halfwords) {
            stop("bnn_count_plugin: an instruction that is not Thumb\n");
        }
        place_t *place = place_of((uint32_t)qemu_plugin_insn_vaddr(insn), code, halfwords);
        qemu_plugin_register_vcpu_insn_exec_cb(insn, on_instruction, CB_NO_REGS, place);
        if (model.flash.wait != 0u) {
            /* Both kinds: asked for reads alone, QEMU 7.2 tells of the stores. */
            qemu_plugin_register_vcpu_mem_cb(insn, on_access, CB_NO_REGS, MEM_RW, NULL);
        }
    }
}

static void read_functions(int file)
{
    const ssize_t size = pread(file, functions, sizeof functions, 0);

    if (size < 0 || (size_t)size % sizeof functions[0] != 0u) {
        stop("bnn_count_plugin: the table of functions cannot be read\n");
    }
    function_count = (uint32_t)((size_t)size / sizeof functions[0]);
}

typedef struct option {
    const char *name;
    uint32_t *value;
} option_t;

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    bnn_flash_t flash = {.line_shift = 4u};
    uint32_t core = BNN_CORE_NONE;
    uint32_t file = 0u;
    uint32_t table = 0u;
    uint32_t prefetch = 0u;
    const option_t options[] = {
        {"ticks", &ticks_at},          {"infer", &infer_at},
        {"records", &file},            {"functions", &table},
        {"core", &core},               {"origin", &flash.origin},
        {"end", &flash.end},           {"wait", &flash.wait},
        {"line", &flash.line_shift},   {"code", &flash.code_lines},
        {"data", &flash.data_lines},   {"prefetch", &prefetch},
    };
    const size_t known = sizeof options / sizeof options[0];

    (void)info;
    for (int i = 0; i < argc; i++) {
        const size_t length = strcspn(argv[i], "=");
        size_t at = 0u;
        while (at < known && (strncmp(options[at].name, argv[i], length) != 0 ||
                              options[at].name[length] != '\0')) {
            at++;
        }
        if (at == known || argv[i][length] == '\0') {
            return -1;
        }
        *options[at].value = (uint32_t)strtoul(argv[i] + length + 1u, NULL, 10);
    }
    if (ticks_at == 0u || infer_at == 0u || file < 3u) {
        return -1;
    }
    records = (int)file;
    if (table != 0u) {
        read_functions((int)table);
    }
    flash.prefetch = prefetch != 0u;
    bnn_cycles_init(&model, core, &flash);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
