/*
 * i.MX RT1062 with 8 MB of quad serial flash, as on a Teensy 4.1: the first 8 KB
 * of flash, from which its ROM learns how to read the rest and where to start.
 *
 * Sources: IMXRT1060RM, chapters System Boot (image vector table, boot data,
 * FlexSPI serial NOR configuration block) and FlexSPI (look-up table); W25Q64JV
 * data sheet (instruction EBh).
 */
#include <stddef.h>
#include <stdint.h>

#define FLASH_START 0x60000000u
#define FLASH_BYTES 0x00800000u
/* The last 256 KB hold what brings a Teensy back to life. */
#define PROGRAM_BYTES (FLASH_BYTES - 0x40000u)

/* Two instructions of the look-up table: what, on how many lines, with what. */
#define CMD 0x01u
#define ADDRESS 0x02u
#define MODE 0x07u
#define READ 0x09u
#define DUMMY 0x0cu
#define ONE_LINE 0u
#define FOUR_LINES 2u
#define STEP(what, lines, operand) (((what) << 10) | ((lines) << 8) | (operand))
#define STEPS(first, second) ((first) | ((second) << 16))

extern const uint32_t bnn_vectors[];
void bnn_boot_entry(void);

typedef struct vector_table {
    uint32_t header;
    void (*entry)(void);
    uint32_t reserved;
    const void *device_configuration;
    const void *boot_data;
    const void *self;
    const void *signature;
    uint32_t reserved_too;
} vector_table_t;

typedef struct boot_data {
    uint32_t start;
    uint32_t length;
    uint32_t plugin;
} boot_data_t;

typedef struct boot {
    uint32_t tag;              /* 0x000 "FCFB" */
    uint32_t version;          /* 0x004 */
    uint32_t reserved;         /* 0x008 */
    uint8_t sample_clock;      /* 0x00c 0: looped back inside, up to 60 MHz */
    uint8_t select_hold;       /* 0x00d */
    uint8_t select_setup;      /* 0x00e */
    uint8_t column_width;      /* 0x00f 0: serial NOR */
    uint32_t modes[13];        /* 0x010 no commands are sent to the flash */
    uint8_t device_type;       /* 0x044 1: serial NOR */
    uint8_t lines;             /* 0x045 */
    uint8_t frequency;         /* 0x046 2: 50 MHz */
    uint8_t own_sequences;     /* 0x047 */
    uint32_t reserved_48[2];   /* 0x048 */
    uint32_t sizes[4];         /* 0x050 of A1, A2, B1, B2 */
    uint32_t pads[8];          /* 0x060 as the ROM sets them; no timeouts */
    uint32_t sequences[64];    /* 0x080 16 of 4 words; the first one reads */
    uint32_t reserved_180[16]; /* 0x180 */
    uint32_t page_bytes;       /* 0x1c0 */
    uint32_t sector_bytes;     /* 0x1c4 */
    uint32_t own_frequency;    /* 0x1c8 1: 30 MHz for commands */
    uint32_t reserved_1cc;     /* 0x1cc */
    uint32_t block_bytes;      /* 0x1d0 */
    uint32_t reserved_1d4[11]; /* 0x1d4 */
    uint32_t unused[896];      /* 0x200 */
    vector_table_t table;      /* 0x1000 */
    boot_data_t data;          /* 0x1020 */
    uint32_t unused_too[1013]; /* 0x102c */
} boot_t;

typedef char bnn_boot_table_must_be_at_4096[offsetof(boot_t, table) == 0x1000u ? 1 : -1];
typedef char bnn_boot_must_be_8192_bytes[sizeof(boot_t) == 0x2000u ? 1 : -1];

extern const boot_t bnn_boot;
__attribute__((section(".boot"), used)) const boot_t bnn_boot = {
    .tag = 0x42464346u,
    .version = 0x56010000u,
    .select_hold = 3u,
    .select_setup = 3u,
    .device_type = 1u,
    .lines = 4u,
    .frequency = 2u,
    .sizes = {FLASH_BYTES, 0u, 0u, 0u},
    .sequences =
        {
            STEPS(STEP(CMD, ONE_LINE, 0xebu), STEP(ADDRESS, FOUR_LINES, 24u)),
            /* Mode bits of 0: the next read begins with a command again. */
            STEPS(STEP(MODE, FOUR_LINES, 0u), STEP(DUMMY, FOUR_LINES, 4u)),
            STEPS(STEP(READ, FOUR_LINES, 4u), 0u),
        },
    .page_bytes = 256u,
    .sector_bytes = 4096u,
    .own_frequency = 1u,
    .block_bytes = 65536u,
    .table =
        {
            .header = 0x432000d1u, /* tag D1h, 32 bytes, version 4.3 */
            .entry = bnn_boot_entry,
            .boot_data = &bnn_boot.data,
            .self = &bnn_boot.table,
        },
    .data = {.start = FLASH_START, .length = PROGRAM_BYTES},
};

/* The ROM calls this on a stack of its own; the core itself would start as this does. */
__attribute__((naked)) void bnn_boot_entry(void)
{
    __asm__ volatile(
        "cpsid i\n\t"
        "movw r0, #:lower16:bnn_vectors\n\t"
        "movt r0, #:upper16:bnn_vectors\n\t"
        "ldr r1, [r0]\n\t"
        "msr msp, r1\n\t"
        "ldr r1, [r0, #4]\n\t"
        "bx r1\n");
}
