/*
 * A TCG plugin for QEMU: the way that every inference takes, instruction by instruction and
 * access by access, held against the first one of its network.
 *
 * The firmware marks the beginning and the end of an inference, and a new network, by hint
 * instructions that do nothing.  For each inference a line goes to the file out=PATH:
 *
 *     network instructions accesses event where here
 *
 * event: the first at which its way differs from that of the network's first inference, or -1;
 * an event is an executed instruction (its address), or an access (its address, with bit 63 set,
 * and bit 62 too for a write).  where: address of the instruction at which that is; here: what
 * it did there, 0 if it had ended.
 *
 * Source: QEMU, docs/devel/tcg-plugins.rst, and include/qemu/qemu-plugin.h, whose declarations
 * are repeated here, as distributions do not package that header.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))
#define NO_REGISTERS 0 /* QEMU_PLUGIN_CB_NO_REGS */
#define READS_AND_WRITES 3 /* QEMU_PLUGIN_MEM_RW */
#define BEGIN 0xBF50u
#define END 0xBF60u
#define NETWORK 0xBF70u
#define ACCESS (UINT64_C(1) << 63)
#define WRITE (UINT64_C(1) << 62)

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t plugin_id_t;
typedef uint32_t plugin_access_t;

PUBLIC int qemu_plugin_version = TRACE_API;
PUBLIC int qemu_plugin_install(plugin_id_t id, const void *info, int argc, char **argv);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id_t id,
                                           void (*call)(plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_atexit_cb(plugin_id_t id, void (*call)(plugin_id_t, void *), void *user);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
                                            void (*call)(unsigned, void *), int flags, void *user);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
                                      void (*call)(unsigned, plugin_access_t, uint64_t, void *),
                                      int flags, int which, void *user);
bool qemu_plugin_mem_is_store(plugin_access_t access);

static FILE *out;
static uint64_t *first; /* the events of the network's first inference */
static size_t length, room;
static bool running, recording;
static unsigned network;
static uint64_t instructions, accesses;
static size_t at;
static long long difference;
static uint64_t pc, where, here;

static void event(uint64_t what)
{
    if (recording) {
        if (length == room) {
            room = room != 0 ? 2 * room : 1u << 16;
            first = realloc(first, room * sizeof *first);
            if (first == NULL) {
                abort();
            }
        }
        first[length++] = what;
    } else if (difference < 0 && (at >= length || first[at] != what)) {
        difference = (long long)at;
        where = pc;
        here = what;
    }
    at++;
}

static void executed(unsigned cpu, void *user)
{
    (void)cpu;
    if (running) {
        pc = (uintptr_t)user;
        instructions++;
        event(pc);
    }
}

static void accessed(unsigned cpu, plugin_access_t access, uint64_t address, void *user)
{
    (void)cpu;
    (void)user;
    if (running) {
        accesses++;
        event(address | ACCESS | (qemu_plugin_mem_is_store(access) ? WRITE : 0));
    }
}

static void begin(unsigned cpu, void *user)
{
    (void)cpu;
    (void)user;
    running = true;
    instructions = accesses = 0;
    at = 0;
    difference = -1;
    where = here = 0;
}

static void end(unsigned cpu, void *user)
{
    (void)cpu;
    (void)user;
    running = false;
    if (!recording && difference < 0 && at < length) {
        difference = (long long)at;
        where = pc;
    }
    recording = false;
    fprintf(out, "%u %llu %llu %lld %llx %llx\n", network, (unsigned long long)instructions,
            (unsigned long long)accesses, difference, (unsigned long long)where,
            (unsigned long long)here);
}

static void next_network(unsigned cpu, void *user)
{
    (void)cpu;
    (void)user;
    network++;
    length = 0;
    recording = true;
}

static void translated(plugin_id_t id, struct qemu_plugin_tb *block)
{
    const size_t count = qemu_plugin_tb_n_insns(block);

    (void)id;
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
        void *address = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);
        void (*call)(unsigned, void *) = executed;
        uint16_t code;
        memcpy(&code, qemu_plugin_insn_data(insn), sizeof code);
        if (qemu_plugin_insn_size(insn) == sizeof code) {
            call = code == BEGIN ? begin : code == END ? end : call;
            call = code == NETWORK ? next_network : call;
        }
        qemu_plugin_register_vcpu_insn_exec_cb(insn, call, NO_REGISTERS, address);
        qemu_plugin_register_vcpu_mem_cb(insn, accessed, NO_REGISTERS, READS_AND_WRITES, NULL);
    }
}

static void finish(plugin_id_t id, void *user)
{
    (void)id;
    (void)user;
    fclose(out);
}

int qemu_plugin_install(plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) {
        return -1;
    }
    out = fopen(argv[0] + 4, "w");
    if (out == NULL) {
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
