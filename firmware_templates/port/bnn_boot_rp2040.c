/*
 * RP2040: the first 256 bytes of flash, which its ROM copies to RAM and calls.
 *
 * They make the flash readable in place with the plain read command (03h), which
 * every serial flash has at 33 MHz and more, then start the program as the core
 * itself would: vector table, stack pointer, reset handler.  The ROM wants the
 * CRC of the first 252 bytes in the last four, or it does not call them.
 *
 * Sources: RP2040 Datasheet, chapters Bootrom (flash second stage) and SSI
 * (Synopsys DW_apb_ssi); ARMv6-M architecture reference manual (DDI 0419) VTOR.
 */
#include <stdint.h>

/*
 * Instructions with one encoding and literals placed by hand: the bytes are the
 * same from every assembler, and with them the CRC, which a test computes anew.
 */
__asm__(
    ".syntax unified\n"
    ".section .boot, \"ax\", %progbits\n"
    ".cpu cortex-m0plus\n"
    ".thumb\n"
    ".balign 256\n"
    ".global bnn_boot\n"
    ".type bnn_boot, %function\n"
    ".thumb_func\n"
    "bnn_boot:\n"
    "    ldr r3, bnn_boot_ssi\n"
    "    movs r1, #0\n"
    "    str r1, [r3, #0x08]\n" /* SSIENR: off, so that it can be set up */
    "    movs r1, #4\n"
    "    str r1, [r3, #0x14]\n" /* BAUDR: a quarter of the clock; even */
    "    ldr r1, bnn_boot_ctrlr0\n"
    "    str r1, [r3, #0x00]\n"
    "    movs r1, #0\n"
    "    str r1, [r3, #0x04]\n" /* CTRLR1: one frame a read */
    "    ldr r0, bnn_boot_spi_ctrlr0\n"
    "    ldr r1, bnn_boot_spi\n"
    "    str r1, [r0]\n"
    "    movs r1, #1\n"
    "    str r1, [r3, #0x08]\n"
    "    ldr r0, bnn_boot_table\n"
    "    ldr r1, bnn_boot_vtor\n"
    "    str r0, [r1]\n"
    "    ldr r1, [r0, #0]\n"
    "    msr msp, r1\n"
    "    ldr r1, [r0, #4]\n"
    "    bx r1\n"
    ".balign 4\n"
    "bnn_boot_ssi: .word 0x18000000\n"
    /* 32-bit frames, standard SPI, send command and address, then receive (EEPROM read). */
    "bnn_boot_ctrlr0: .word 0x001f0300\n"
    "bnn_boot_spi_ctrlr0: .word 0x180000f4\n"
    /* Command 03h of 8 bits, address of 24 bits, both on one line. */
    "bnn_boot_spi: .word 0x03000218\n"
    "bnn_boot_table: .word 0x10000100\n"
    "bnn_boot_vtor: .word 0xe000ed08\n"
    "    .org 252, 0\n"
    /* CRC-32 of polynomial 04c11db7, not reflected, starting with ones, as it comes out. */
    "    .word 0x13f1a686\n"
    ".previous\n");

/* Nothing refers to the above: this keeps C99 from calling the file empty. */
typedef char bnn_boot_is_assembly[sizeof(uint32_t) == 4u ? 1 : -1];
