/* Between the files of the protocol server; nobody else includes this. */
#ifndef BNN_SERVER_INTERNAL_H
#define BNN_SERVER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bnn_protocol.h"

/* Delimiters received, wrapping, whether they ended a frame or not. */
extern uint32_t bnn_delimiters;

/*
 * Where the payload of a reply goes, at most BNN_REPLY_MAX bytes.  From now on
 * the last reply cannot be repeated.
 */
uint32_t *bnn_begin_reply(void);

/* Send the reply whose payload of that length lies there, and keep it for a retry. */
void bnn_send_reply(const bnn_frame_t *request, size_t length);

/* Answer with an ERROR, which leaves the buffer of the reply alone. */
void bnn_refuse(const bnn_frame_t *request, uint8_t code, uint32_t detail);

/* True if the request has no payload; or it is refused. */
bool bnn_check_empty(const bnn_frame_t *request);

/* True if the firmware in flash is what was built, as far as is known; or the request is refused. */
bool bnn_check_sound(const bnn_frame_t *request);

/* bnn_server_infer.c: what the model answers. */
void bnn_infer_reset(void);
void bnn_answer_infer(const bnn_frame_t *request);
void bnn_answer_counters(const bnn_frame_t *request);
void bnn_answer_sample(const bnn_frame_t *request);

/* bnn_server_device.c: what the board tells of itself. */
void bnn_answer_hello(const bnn_frame_t *request);
void bnn_answer_check(const bnn_frame_t *request);
void bnn_answer_last_fault(const bnn_frame_t *request);

/* bnn_server_baud.c: another baud, and the way back. */
void bnn_answer_baud(const bnn_frame_t *request);

/* A sound frame came: the other end has our baud. */
void bnn_baud_heard(void);

/* At the start, when the port is at the board's own baud. */
void bnn_baud_init(void);

/* Go back to the board's own baud if too much came of which nothing made sense. */
void bnn_baud_watch(void);

#endif
