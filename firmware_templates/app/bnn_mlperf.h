/*
 * The text protocol of the MLPerf Tiny runner, instead of the one in
 * bnn_server.h: commands that end with '%', answers in lines, m-ready last.
 * docs/MLPERF.md has the commands and what differs from the reference.
 */
#ifndef BNN_MLPERF_H
#define BNN_MLPERF_H

#include <stdbool.h>

/* Forget everything received and computed so far, and greet. */
void bnn_mlperf_init(void);

/*
 * Take in what has come, up to and including one command, and answer it.
 * Returns false once nothing is left to read.
 */
bool bnn_mlperf_poll(void);

/* bnn_mlperf_init(), then poll and sleep in turn for ever. */
void bnn_mlperf_run(void);

#endif
