#include "bnn_small.h" /* before any code */

#include "bnn_field.h"

#include "bnn_frame.h"
#include "bnn_persist.h"

/* Cells in a row that take no mark before the flash is called worn out. */
#define TRIES 8u

/*
 * A mark with the number n says that values from n * BNN_FIELD_BLOCK on, as many
 * as a block has, may have been given.  It is set, and read back, before the first
 * of them is.
 */
static struct {
    bool known;    /* the marks were looked for since the last reset */
    bool guarded;  /* and one was set since, whose block is not given */
    uint32_t mark; /* the next one to set */
    uint64_t next;
    uint64_t limit; /* the end of what is set aside */
} state;

static bool set_next(void)
{
    for (unsigned i = 0; i < TRIES && state.mark < bnn_persist_marks(); i++) {
        state.mark++;
        if (bnn_persist_set(state.mark - 1u)) {
            return true;
        }
    }
    return false;
}

static bool set_aside(void)
{
    if (!state.known) {
        state.mark = bnn_persist_end();
        state.known = true;
    }
    /*
     * The last mark of all may fade, or may have been cut off while it was set: at
     * the next start it is found unset, and set again.  So the first one that a
     * start sets gives nothing: no block is behind a mark that was set before.
     */
    if (!state.guarded) {
        state.guarded = set_next();
    }
    if (!state.guarded || !set_next()) {
        return false;
    }
    state.next = (uint64_t)(state.mark - 1u) * BNN_FIELD_BLOCK;
    state.limit = state.next + BNN_FIELD_BLOCK;
    return true;
}

void bnn_field_init(void)
{
    state.known = false;
    state.guarded = false;
    state.next = 0;
    state.limit = 0;
}

bool bnn_field_take(uint32_t count, uint64_t *first)
{
    /* What is left of a block is passed over: the values of a request follow each other. */
    if (count > state.limit - state.next && !set_aside()) {
        return false;
    }
    *first = state.next;
    state.next += count;
    return true;
}

uint64_t bnn_field_seed(uint64_t counter)
{
    uint8_t bytes[8];

    bnn_put_u64(bytes, counter);
    return bnn_siphash(bnn_field_key, bytes, sizeof bytes);
}
