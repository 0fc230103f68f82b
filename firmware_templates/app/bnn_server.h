/*
 * The protocol server: answers HELLO, INFER, COUNTERS and SAMPLE requests that
 * come through bnn_port.h, from the model in bnn_model.h.  All memory is static.
 */
#ifndef BNN_SERVER_H
#define BNN_SERVER_H

#include <stdbool.h>

/* Forget everything received and answered so far. */
void bnn_server_init(void);

/*
 * Take in what has come, up to and including one answered frame.  Returns
 * false once nothing is left to read.
 */
bool bnn_server_poll(void);

/* bnn_server_init(), then poll and sleep in turn for ever. */
void bnn_server_run(void);

#endif
