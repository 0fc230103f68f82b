/*
 * Marks for tests of field mode, and power that goes.  A mark that was being set
 * when power went is weak: each start finds it set or not, as chance has it; and
 * the last mark of all may fade.
 *
 * For a process (-DFIELD_FILE) the marks are kept in the file that BNN_FIELD_FILE
 * names, if any.
 */
#include "bnn_persist.h"

#include <stdio.h>
#include <stdlib.h>

#ifndef FIELD_MARKS
#define FIELD_MARKS 4096u
#endif

enum { UNSET, SET, WEAK };

void field_power(uint32_t seed, uint32_t lasts, uint32_t fades);
void field_new(void);

static uint8_t marks[FIELD_MARKS];
static uint8_t seen[FIELD_MARKS]; /* as they are found since the power came */
static uint32_t chance = 1;
static uint32_t left = UINT32_MAX; /* marks that are set before power goes */

static uint32_t any(void)
{
    chance = chance * 1664525u + 1013904223u;
    return chance >> 16;
}

/* A board that never ran. */
void field_new(void)
{
    for (uint32_t i = 0; i < FIELD_MARKS; i++) {
        marks[i] = UNSET;
        seen[i] = UNSET;
    }
}

/* Power comes, and goes while the mark behind so many is set; fades: the last mark gets weak. */
void field_power(uint32_t seed, uint32_t lasts, uint32_t fades)
{
    chance = seed;
    left = lasts;
    if (fades != 0u && bnn_persist_end() > 0u) {
        marks[bnn_persist_end() - 1u] = WEAK;
    }
    for (uint32_t i = 0; i < FIELD_MARKS; i++) {
        seen[i] = marks[i] == WEAK ? (uint8_t)(any() % 2u) : marks[i];
    }
}

uint32_t bnn_persist_marks(void)
{
    return FIELD_MARKS;
}

#ifdef FIELD_FILE
static void keep(const char *mode)
{
    const char *name = getenv("BNN_FIELD_FILE");
    FILE *file = name == NULL ? NULL : fopen(name, mode);

    if (file != NULL) {
        (void)!(mode[0] == 'r' ? fread(seen, 1, sizeof seen, file) : fwrite(seen, 1, sizeof seen, file));
        (void)fclose(file);
    }
}
#endif

uint32_t bnn_persist_end(void)
{
    uint32_t end = FIELD_MARKS;

#ifdef FIELD_FILE
    keep("rb");
#endif
    while (end > 0u && seen[end - 1u] == UNSET) {
        end--;
    }
    return end;
}

bool bnn_persist_set(uint32_t mark)
{
    if (left == UINT32_MAX) {
        seen[mark] = SET;
    } else if (left == 0u) {
        /* No power any more. */
        return false;
    } else if (--left == 0u) {
        marks[mark] = WEAK;
        return false;
    } else {
        marks[mark] = SET;
        seen[mark] = SET;
    }
#ifdef FIELD_FILE
    keep("wb");
#endif
    return true;
}
