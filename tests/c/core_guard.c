/*
 * Runs generated models whose arena is laid out with every buffer flush against a page that
 * nobody may touch, and opens to each layer only what it may read and write.
 *
 * Reads images and seeds from stdin, writes logits; a layer that leaves its buffers ends the
 * program, and its name and the address are printed.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core_guard.h"

static const core_guarded_t *at; /* the model that runs, and the layer */
static unsigned running;
static uint8_t *arena, *image, *image_pages;

static void stop(const char *why)
{
    fprintf(stderr, "%s\n", why);
    exit(2);
}

/* Not safe in a signal handler, but the program is about to end. */
static void left(int number, siginfo_t *info, void *context)
{
    const uint8_t *address = info->si_addr;

    (void)number;
    (void)context;
    fprintf(stderr, "%s: %s left its buffers: byte %td of the arena, %td of the image\n",
            at->model->name, at->model->layers[running].name, address - arena, address - image);
    fflush(stderr);
    _exit(3);
}

static size_t pages(size_t bytes)
{
    return (bytes + CORE_PAGE - 1u) / CORE_PAGE * CORE_PAGE;
}

static void allow(uint8_t *from, size_t bytes, int rights)
{
    if (mprotect(from, pages(bytes), rights) != 0) {
        stop("mprotect");
    }
}

static void allow_image(int rights)
{
    allow(image_pages, (size_t)at->model->height * at->model->width * at->model->channels, rights);
}

/* What the layer may do, and nothing else. */
static void open_to(unsigned layer)
{
    static const int rights[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    const uint8_t *allowed = at->rights + (size_t)layer * (at->buffers + 1u);

    running = layer;
    allow_image(rights[allowed[0]]);
    for (unsigned i = 0; i < at->buffers; i++) {
        const core_buffer_t *buffer = &at->places[i];
        allow(arena + buffer->pages, buffer->bytes, rights[allowed[i + 1u]]);
    }
}

static void after(void *user, unsigned layer)
{
    (void)user;
    if (layer + 1u < at->model->n_layers) {
        open_to(layer + 1u);
    }
}

static void take(void *to, size_t size)
{
    if (fread(to, size, 1, stdin) != 1) {
        stop("request cut short");
    }
}

static uint8_t *reserve(size_t bytes)
{
    void *got = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (got == MAP_FAILED) {
        stop("mmap");
    }
    return got;
}

static void give(bnn_ctx_t *ctx)
{
    for (unsigned c = 0; c < at->model->classes; c++) {
        const int64_t logit = bnn_logit(ctx, c);
        if (fwrite(&logit, sizeof logit, 1, stdout) != 1) {
            stop("fwrite");
        }
    }
}

static void run(void)
{
    const bnn_model_t *model = at->model;
    const size_t size = (size_t)model->height * model->width * model->channels;
    const size_t whole = 4u * (size_t)model->arena_words;
    bnn_ctx_t ctx;

    arena = reserve(pages(whole));
    image_pages = reserve(pages(size) + 2u * CORE_PAGE) + CORE_PAGE;
    image = CORE_AT_END ? image_pages + pages(size) - size : image_pages;
    if (bnn_init(&ctx, model, (uint32_t *)(void *)arena, model->arena_words) != BNN_OK) {
        stop("bnn_init");
    }
    ctx.hook = after;
    for (unsigned n = 0; n < CORE_IMAGES; n++) {
        uint64_t seed;

        allow_image(PROT_READ | PROT_WRITE);
        take(image, size);
        take(&seed, sizeof seed);
        open_to(0);
        if (bnn_infer(&ctx, image, size, seed) != BNN_OK) {
            stop("bnn_infer");
        }
        give(&ctx);
        if (model->first_drawn < model->n_layers) {
            open_to(model->first_drawn);
            if (bnn_redraw(&ctx, seed) != BNN_OK) {
                stop("bnn_redraw");
            }
            give(&ctx);
        }
    }
    munmap(arena, pages(whole));
    munmap(image_pages - CORE_PAGE, pages(size) + 2u * CORE_PAGE);
}

int main(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_sigaction = left;
    action.sa_flags = SA_SIGINFO;
    if (sysconf(_SC_PAGESIZE) != CORE_PAGE || sigaction(SIGSEGV, &action, NULL) != 0 ||
        sigaction(SIGBUS, &action, NULL) != 0) {
        stop("another size of pages, or no signals");
    }
    for (unsigned i = 0; i < CORE_MODELS; i++) {
        at = &core_guarded[i];
        run();
    }
    return 0;
}
