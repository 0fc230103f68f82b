/* What must hold of a server in field mode; see fuzz_field.c. */
#ifndef FUZZ_FIELD_H
#define FUZZ_FIELD_H

#include <stdbool.h>
#include <stddef.h>

#include "bnn.h"
#include "fuzz_wire.h"

/* A board whose marks are all left, some, none, or worn out, as `kind` chooses. */
void field_start(size_t kind, bool corrupt, bnn_ctx_t *twin);

/* Check an answer of the kind that field mode changes; false for all others. */
bool field_check(const wire_frame_t *request, const wire_frame_t *answer);

#endif
