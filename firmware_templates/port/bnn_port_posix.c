/*
 * The firmware as a process of the host: the same server, over standard input
 * and output or over the inherited descriptor that BNN_PORT_FD names (both
 * ways, e.g. a socket or a pseudo-terminal).  Made for sanitizers, fuzzing and
 * as a reference peer; it ends when the other side closes.
 *
 * Its counter is the monotonic clock in nanoseconds: host time, not cycles.
 */
#define _POSIX_C_SOURCE 200809L

#include "bnn_port.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifndef BNN_BOARD
#define BNN_BOARD "posix"
#endif

/* Far more than any model's window needs; the descriptor itself buffers more. */
#define RX_BYTES 4096u

const char bnn_port_board[] = BNN_BOARD;

static int input = STDIN_FILENO;
static int output = STDOUT_FILENO;
static bool ended;

static uint8_t pending[RX_BYTES];
static size_t pending_at;
static size_t pending_size;
static uint32_t received;

void bnn_port_init(void)
{
    const char *name = getenv("BNN_PORT_FD");

    if (name != NULL) {
        char *end = NULL;
        long descriptor;

        errno = 0;
        descriptor = strtol(name, &end, 10);
        if (errno != 0 || end == name || *end != '\0' || descriptor < 0 || descriptor > 65535) {
            fprintf(stderr, "BNN_PORT_FD: not a descriptor: %s\n", name);
            exit(2);
        }
        input = (int)descriptor;
        output = (int)descriptor;
    }
    /* A closed peer shall be an error of write(), not a signal. */
    signal(SIGPIPE, SIG_IGN);
}

uint32_t bnn_port_kept[BNN_PORT_KEPT_WORDS];

/* A process has no image of its own; tests give it one by its checksum. */
bool bnn_port_image(const uint8_t **bytes, size_t *size, uint32_t *crc)
{
#ifdef BNN_POSIX_IMAGE_CRC
    static const uint8_t image[] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};

    *bytes = image;
    *size = sizeof image;
    *crc = BNN_POSIX_IMAGE_CRC;
    return true;
#else
    *bytes = NULL;
    *size = 0;
    *crc = 0;
    return false;
#endif
}

uint8_t bnn_port_reset_cause(void)
{
    return BNN_RESET_POWER;
}

static bool readable(int timeout_ms)
{
    struct pollfd item = {input, POLLIN, 0};

    return !ended && poll(&item, 1, timeout_ms) > 0;
}

/* Take in what waits, as the interrupt of a real port would. */
static void take_in(void)
{
    while (pending_size < RX_BYTES && readable(0)) {
        size_t end = (pending_at + pending_size) % RX_BYTES;
        size_t room = end < pending_at ? pending_at - end : RX_BYTES - end;
        ssize_t got = read(input, pending + end, room);

        if (got > 0) {
            pending_size += (size_t)got;
            received += (uint32_t)got;
        } else if (got == 0 || errno != EINTR) {
            ended = true; /* end of file; EIO when a terminal's other side closes */
        }
    }
}

int bnn_port_read(void)
{
    int byte;

    if (pending_size == 0) {
        take_in();
    }
    if (pending_size == 0) {
        return -1;
    }
    byte = pending[pending_at];
    pending_at = (pending_at + 1u) % RX_BYTES;
    pending_size--;
    return byte;
}

void bnn_port_wait(void)
{
    if (ended) {
        exit(0);
    }
    (void)readable(-1);
}

void bnn_port_write(const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t done = write(output, data, size);

        if (done > 0) {
            data += done;
            size -= (size_t)done;
        } else if (done < 0 && errno == EAGAIN) {
            struct pollfd item = {output, POLLOUT, 0};
            (void)poll(&item, 1, -1);
        } else if (done < 0 && errno != EINTR) {
            exit(0); /* the peer has gone */
        }
    }
}

/* Any: the bytes of a descriptor come whatever the other end calls its baud. */
#define OWN_BAUD 115200u
static uint32_t line_baud = OWN_BAUD;

uint32_t bnn_port_baud(uint32_t baud)
{
    return baud == 0 ? line_baud : baud;
}

void bnn_port_set_baud(uint32_t baud)
{
    line_baud = baud == 0 ? OWN_BAUD : baud;
}

uint32_t bnn_port_garbled(void)
{
    return 0;
}

uint32_t bnn_port_received(void)
{
    take_in();
    return received;
}

uint32_t bnn_port_capacity(void)
{
    return RX_BYTES;
}

bool bnn_port_overrun(void)
{
    return false; /* the descriptor holds back what does not fit */
}

uint32_t bnn_port_ticks(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
}

uint8_t bnn_port_counter(void)
{
    return BNN_COUNTER_TIMER;
}

uint32_t bnn_port_clock_hz(void)
{
    return 0; /* no clock tree: nobody shall turn these ticks into board time */
}

uint32_t bnn_port_stack_free(void)
{
    return 0; /* the host's stack is not painted */
}
