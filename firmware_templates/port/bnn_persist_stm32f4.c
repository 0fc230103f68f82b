/*
 * Marks in the last sector of an STM32F4's flash: RM0390 section 3, RM0090
 * section 3; section numbers below are RM0390's.  A mark is a bit, which erasing
 * sets and programming clears: a word takes 32 of them, one after the other, since
 * a word may be programmed again as long as no bit goes from 0 to 1 (3.5.4).
 * Nothing is ever erased.  The core runs from the same flash and waits while a
 * word is programmed, for 16 us (data sheets, "Flash memory programming").
 *
 * Written from the manuals; it never ran on a chip.
 */
#include "bnn_small.h" /* before any code */

#include "bnn_persist.h"

#include "bnn_board.h"
#include "bnn_reg.h"

/* Flash interface, 3.8 */
#define FLASH_ACR BNN_REG(BNN_BOARD_PERSIST_CONTROL_ADDRESS + 0x00u)
#define FLASH_KEYR BNN_REG(BNN_BOARD_PERSIST_CONTROL_ADDRESS + 0x04u)
#define FLASH_SR BNN_REG(BNN_BOARD_PERSIST_CONTROL_ADDRESS + 0x0cu)
#define FLASH_CR BNN_REG(BNN_BOARD_PERSIST_CONTROL_ADDRESS + 0x10u)
#define ACR_DCEN (1u << 10)
#define ACR_DCRST (1u << 12)
#define KEY1 0x45670123u
#define KEY2 0xcdef89abu
#define SR_ERRORS ((1u << 1) | (0x1fu << 4)) /* OPERR; WRPERR, PGAERR, PGPERR, PGSERR, RDERR */
#define SR_BUSY (1u << 16)
#define CR_PG (1u << 0)
#define CR_PSIZE_32 (2u << 8) /* needs 2.7 to 3.6 V: 3.5.2 */
#define CR_LOCK (1u << 31)

#define WORD_MARKS 32u
#define WORDS (BNN_BOARD_PERSIST_BYTES / 4u)

static volatile uint32_t *word_at(uint32_t index)
{
    return &BNN_REG(BNN_BOARD_PERSIST_ADDRESS + 4u * index);
}

static bool done(void)
{
    return bnn_wait_for(&FLASH_SR, SR_BUSY, 0u) && (FLASH_SR & SR_ERRORS) == 0u;
}

static bool program(uint32_t index, uint32_t word)
{
    const uint32_t acr = FLASH_ACR;
    bool taken;

    if ((FLASH_CR & CR_LOCK) != 0u) {
        FLASH_KEYR = KEY1;
        FLASH_KEYR = KEY2;
    }
    /* Writing a one clears an old error. */
    FLASH_SR = SR_ERRORS;
    taken = done();
    if (taken) {
        FLASH_CR = CR_PSIZE_32 | CR_PG;
        *word_at(index) = word;
        /* Flash is ordinary memory to the core: the write shall be on its way before SR is read. */
        __asm__ volatile("dsb" ::: "memory");
        taken = done();
    }
    FLASH_CR = CR_LOCK;
    /* What is read back shall come from the cells: the data cache is emptied, while it is off. */
    FLASH_ACR = acr & ~ACR_DCEN;
    FLASH_ACR = (acr & ~ACR_DCEN) | ACR_DCRST;
    FLASH_ACR = acr & ~ACR_DCEN;
    FLASH_ACR = acr;
    return taken;
}

uint32_t bnn_persist_marks(void)
{
    return WORD_MARKS * WORDS;
}

uint32_t bnn_persist_end(void)
{
    for (uint32_t index = WORDS; index > 0u; index--) {
        const uint32_t set = ~*word_at(index - 1u);

        if (set != 0u) {
            uint32_t end = WORD_MARKS;

            while ((set >> (end - 1u)) == 0u) {
                end--;
            }
            return WORD_MARKS * (index - 1u) + end;
        }
    }
    return 0u;
}

bool bnn_persist_set(uint32_t mark)
{
    const uint32_t index = mark / WORD_MARKS;
    const uint32_t bit = 1u << mark % WORD_MARKS;

    return program(index, *word_at(index) & ~bit) && (*word_at(index) & bit) == 0u;
}
