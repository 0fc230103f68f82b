/* Convolutions by sign-pattern classes. */
#include "bnn_classes_internal.h"

#if defined(__thumb2__) && !defined(BNN_PORTABLE)
#include "bnn_classes_thumb2.h"
#define BNN_THUMB2 1
#define BNN_HAS_LOOPS 1
#define BNN_OUTLINE __attribute__((noinline))
#elif defined(__thumb__) && !defined(BNN_PORTABLE)
#include "bnn_classes_thumb1.h"
#define BNN_THUMB1 1
#define BNN_HAS_LOOPS 1
#define BNN_OUTLINE __attribute__((noinline))
#else
#define BNN_OUTLINE
#endif

/* Planes of the sum of a run: it has at most 127 inputs. */
#define BNN_RUN_PLANES 7u

typedef const void *(*bnn_run_t)(const void *list, const uint32_t *x, uint32_t *sums,
                                 uint32_t classes);

static inline uint32_t bnn_full_add(uint32_t *sum, uint32_t a, uint32_t b)
{
    const uint32_t partial = *sum ^ a;
    const uint32_t carry = (*sum & a) | (partial & b);
    *sum = partial ^ b;
    return carry;
}

/* The bits of eight words are added to the planes of a sum. */
static inline void bnn_count_octet(uint32_t *sum, const uint32_t *v)
{
    uint32_t t0 = bnn_full_add(&sum[0], v[0], v[1]);
    uint32_t t1 = bnn_full_add(&sum[0], v[2], v[3]);
    const uint32_t f0 = bnn_full_add(&sum[1], t0, t1);
    t0 = bnn_full_add(&sum[0], v[4], v[5]);
    t1 = bnn_full_add(&sum[0], v[6], v[7]);
    const uint32_t f1 = bnn_full_add(&sum[1], t0, t1);
    uint32_t carry = bnn_full_add(&sum[2], f0, f1);
    for (uint32_t i = 3; i < BNN_RUN_PLANES; i++) {
        const uint32_t next = sum[i] & carry;
        sum[i] ^= carry;
        carry = next;
    }
}

/*
 * The sums of one run over all classes of a set; returns the rest of the list, whose
 * entries count in words or in bytes.
 */
static inline const void *bnn_run_entries(const void *list, const uint32_t *x, uint32_t *sums,
                                          uint32_t classes, uint32_t unit)
{
    const uint16_t *at = list;

    for (; classes > 0; classes--, sums += BNN_STRIDE) {
        uint32_t sum[BNN_RUN_PLANES] = {0}, v[8];
        uint32_t quads = *at++;
        for (; quads > 1; quads -= 2, at += 8) {
            for (uint32_t i = 0; i < 8; i++) {
                v[i] = x[at[i] / unit];
            }
            bnn_count_octet(sum, v);
        }
        if (quads != 0) {
            for (uint32_t i = 0; i < 4; i++) {
                v[i] = x[*at++ / unit];
                v[i + 4] = 0;
            }
            bnn_count_octet(sum, v);
        }
        for (uint32_t i = 0; i < BNN_RUN_PLANES; i++) {
            sums[i] = sum[i];
        }
    }
    return at;
}

#ifndef BNN_HAS_LOOPS
static const void *bnn_run_places(const void *list, const uint32_t *x, uint32_t *sums,
                                  uint32_t classes)
{
    return bnn_run_entries(list, x, sums, classes, 1u);
}
#endif

#ifndef BNN_THUMB1
static const void *bnn_run_offsets(const void *list, const uint32_t *x, uint32_t *sums,
                                   uint32_t classes)
{
    return bnn_run_entries(list, x, sums, classes, 4u);
}
#endif

#ifndef BNN_HAS_STEPS
static const void *bnn_run_steps(const void *list, const uint32_t *x, uint32_t *sums,
                                 uint32_t classes)
{
    const uint8_t *at = list;

    for (; classes > 0; classes--, sums += BNN_STRIDE) {
        uint32_t sum[BNN_RUN_PLANES] = {0}, v[8];
        const uint32_t *from = x;
        uint32_t quads = *at++;
        for (; quads > 1; quads -= 2, at += 8) {
            for (uint32_t i = 0; i < 8; i++) {
                from += at[i];
                v[i] = *from;
            }
            bnn_count_octet(sum, v);
        }
        if (quads != 0) {
            for (uint32_t i = 0; i < 4; i++) {
                from += *at++;
                v[i] = *from;
                v[i + 4] = 0;
            }
            bnn_count_octet(sum, v);
        }
        for (uint32_t i = 0; i < BNN_RUN_PLANES; i++) {
            sums[i] = sum[i];
        }
    }
    return at;
}
#endif

/* sum = a + b, count times, of as many planes each; a sum has one more. */
static BNN_OUTLINE void bnn_add_any(uint32_t *sum, const uint32_t *a, const uint32_t *b,
                                    uint32_t count, uint32_t planes)
{
    for (; count > 0; count--, sum += BNN_STRIDE, a += BNN_STRIDE, b += BNN_STRIDE) {
        uint32_t carry = 0;
        for (uint32_t i = 0; i < planes; i++) {
            const uint32_t partial = a[i] ^ b[i], both = a[i] & b[i];
            sum[i] = partial ^ carry;
            carry = both | (partial & carry);
        }
        sum[planes] = carry;
    }
}

static inline void bnn_add_numbers(uint32_t *sum, const uint32_t *a, const uint32_t *b,
                                   uint32_t count, uint32_t planes)
{
#ifdef BNN_THUMB2
    if (planes >= BNN_FEWEST && planes <= BNN_MOST) {
        bnn_adders[planes - BNN_FEWEST](sum, a, b, count);
        return;
    }
#elif defined(BNN_THUMB1)
    if (planes >= BNN_FEWEST && planes <= BNN_MOST) {
        bnn_add_planes(sum, a, b, count << 8 | planes);
        return;
    }
#endif
    bnn_add_any(sum, a, b, count, planes);
}

static inline void bnn_widen(uint32_t *number, uint32_t planes, uint32_t wide)
{
    for (; planes < wide; planes++) {
        number[planes] = 0;
    }
}

/* Where M of filter k is after folding. */
static inline uint32_t *bnn_mark(const bnn_room_t *room, uint32_t k)
{
    return k == 1 ? room->sums + BNN_STRIDE : room->marks + k * BNN_STRIDE;
}

/*
 * From the sums of the classes, m to the first of them and M of the filters
 * 1, 2 .. to their marks.  Bit k - 1 of a class says that filter k disagrees.
 */
static void bnn_fold(const bnn_room_t *room, uint32_t filters, uint32_t planes)
{
    for (uint32_t k = filters - 1; k > 0; k--, planes++) {
        const uint32_t half = 1u << (k - 1);
        uint32_t *const upper = room->sums + half * BNN_STRIDE;
        const uint32_t *from = upper;
        uint32_t count = half, sum_planes = planes;
        for (; count > 2; sum_planes++, from = room->more) {
            count /= 2;
            bnn_add_numbers(room->more, from, from + count * BNN_STRIDE, count, sum_planes);
        }
        if (count == 2) {
            bnn_add_numbers(bnn_mark(room, k), from, from + BNN_STRIDE, 1, sum_planes);
        }
        bnn_add_numbers(room->sums, room->sums, upper, half, planes);
    }
}

/* value = m - 2 M + addend modulo 2^planes, the addend for each lane if there are lanes. */
static void bnn_weigh(uint32_t *value, const uint32_t *m, const uint32_t *mark,
                      const uint32_t *lanes, uint32_t addend, uint32_t planes)
{
    uint32_t carry = 0, borrow = 0, twice = 0;

    for (uint32_t i = 0; i < planes; i++) {
        const uint32_t a = m[i];
        const uint32_t b = lanes != NULL ? lanes[i] : 0u - (addend >> i & 1u);
        const uint32_t partial = a ^ b, sum = partial ^ carry;
        carry = (a & b) | (partial & carry);
        const uint32_t difference = sum ^ twice;
        value[i] = difference ^ borrow;
        borrow = (~sum & twice) | (~difference & borrow);
        twice = mark[i];
    }
}

#ifndef BNN_HAS_LOOPS
/* The sign of m - 2 M + addend modulo 2^planes. */
static uint32_t bnn_sign_of(const uint32_t *m, const uint32_t *mark, uint32_t addend,
                            uint32_t planes)
{
    uint32_t value[BNN_STRIDE];

    bnn_weigh(value, m, mark, NULL, addend, planes);
    return value[planes - 1u];
}

static uint32_t bnn_sign_of_lanes(const uint32_t *m, const uint32_t *mark, const uint32_t *addend,
                                  uint32_t planes)
{
    uint32_t value[BNN_STRIDE];

    bnn_weigh(value, m, mark, addend, 0, planes);
    return value[planes - 1u];
}
#endif

static const uint32_t bnn_nothing[BNN_STRIDE];

/* The bits of a set, with the same addend for all lanes. */
static void bnn_set_signs(const bnn_classes_t *conv, const bnn_room_t *room, uint32_t first,
                          uint32_t filters)
{
    const int16_t *addend = conv->addend + first;
    const uint32_t *mark = bnn_nothing;
    uint32_t *row = room->rows + first;

    for (uint32_t k = 1; k <= filters; k++) {
        *row++ = bnn_sign_of(room->sums, mark, (uint32_t)(int32_t)*addend++, conv->planes);
        mark = k == 1 ? room->sums + BNN_STRIDE : room->marks + k * BNN_STRIDE;
    }
}

/* Planes that hold the sum of some runs. */
static uint32_t bnn_planes_of(uint32_t most)
{
    uint32_t planes = 0;

    for (; most != 0; most >>= 1) {
        planes++;
    }
    return planes;
}

/* The sums of the classes of a set, over all its runs; planes gets how many they have. */
static const void *bnn_sum_classes(const bnn_room_t *room, bnn_run_t run, const void *list,
                                   uint32_t runs, uint32_t classes, uint32_t run_planes,
                                   uint32_t words, uint32_t *planes)
{
    const uint32_t most = (1u << run_planes) - 1;

    list = run(list, room->x, room->sums, classes);
    *planes = run_planes;
    for (uint32_t done = 1; done < runs; done++) {
        const uint32_t wide = bnn_planes_of(most * done);
        /* Places count from the beginning, steps from where the part of a run begins. */
        list = run(list, room->x + words * done / runs, room->more, classes);
        for (uint32_t i = 0; i < classes; i++) {
            uint32_t *const more = room->more + i * BNN_STRIDE;
            bnn_widen(more, run_planes, wide);
        }
        bnn_add_numbers(room->sums, room->sums, room->more, classes, wide);
        *planes = bnn_planes_of(most * (done + 1));
    }
    return list;
}

static void bnn_classes_run(const bnn_classes_t *conv, const uint32_t *in, uint32_t *scratch,
                            uint32_t *out, bnn_run_t run, const void *lists, uint32_t words)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t positions = (uint32_t)s->out_h * s->out_w;
    /* Classes of the largest set. */
    const uint32_t most = 1u << (conv->filters - (conv->larger != 0 ? 0u : 1u));
    uint32_t group = 0, before = 0;
    bnn_room_t room;

    room.sums = scratch;
    room.more = room.sums + (size_t)most * BNN_STRIDE;
    room.marks = room.more + (size_t)most * BNN_STRIDE;
    room.block = room.marks + BNN_CLASSES_FILTERS * BNN_STRIDE;
    room.y = room.block + 32;
    room.x0 = room.y + 32;
    room.taps = room.x0 + 32;
    room.rows = room.taps + 32;
    room.cols = room.rows + 32u * bnn_words(s->out_c);
    room.planes = room.cols + s->kernel_w;
    room.x = room.planes + (size_t)32u * bnn_words(s->in_c) * conv->pitch;
    if (conv->pitch != 0) {
        bnn_class_planes(conv, in, &room);
    }
    for (uint32_t first = 0; first < positions; first += 32, group++) {
        const uint32_t left = positions - first, lanes = left < 32u ? left : 32u;
        const uint32_t *edges = conv->addend != NULL
                                    ? NULL
                                    : conv->edges + (size_t)conv->edge[group] * s->out_c *
                                                        conv->planes;
        const uint8_t *runs = conv->runs;
        const void *list = lists;
        uint32_t larger = conv->larger;
        bnn_class_inputs(conv, in, &room, first, lanes);
        if (!conv->bits) {
            bnn_class_taps(s, &room, lanes);
        }
        for (uint32_t filter = 0; filter < s->out_c;) {
            const uint32_t rest = s->out_c - filter;
            const uint32_t wanted = conv->filters + (larger != 0 ? 1u : 0u);
            const uint32_t filters = rest < wanted ? rest : wanted;
            const uint32_t kind = (uint32_t)*runs << 8 | filters;
            uint32_t planes;
            larger -= larger != 0 ? 1u : 0u;
            if (kind != before) {
                /* Sets of a kind write the same planes, and leave those above as they are. */
                bnn_widen(room.sums, 0, 2u * BNN_STRIDE);
                bnn_widen(room.marks, 0, BNN_CLASSES_FILTERS * BNN_STRIDE);
                before = kind;
            }
            list = bnn_sum_classes(&room, run, list, *runs++, 1u << (filters - 1),
                                   conv->run_planes, words, &planes);
            bnn_fold(&room, filters, planes);
            if (conv->bits && edges == NULL) {
                bnn_set_signs(conv, &room, filter, filters);
                filter += filters;
                continue;
            }
            for (uint32_t k = 0; k < filters; k++, filter++) {
                const uint32_t *mark = k != 0 ? bnn_mark(&room, k) : bnn_nothing;
                const uint32_t addend =
                    conv->addend != NULL ? (uint32_t)(int32_t)conv->addend[filter] : 0;
                if (!conv->bits) {
                    bnn_weigh(room.block, room.sums, mark, edges, addend, conv->planes);
                    bnn_class_sums(conv, &room, first, lanes, filter, out);
                } else {
                    room.rows[filter] = bnn_sign_of_lanes(room.sums, mark, edges, conv->planes);
                }
                if (edges != NULL) {
                    edges += conv->planes;
                }
            }
        }
        if (conv->bits) {
            bnn_class_bits(conv, &room, first, lanes, out);
        }
    }
}

void bnn_conv_classes(const bnn_classes_t *conv, const uint32_t *in, uint32_t *scratch,
                      uint32_t *out)
{
    bnn_classes_run(conv, in, scratch, out, bnn_run_places, conv->places, 0);
}

void bnn_conv_class_steps(const bnn_classes_t *conv, const uint32_t *in, uint32_t *scratch,
                          uint32_t *out)
{
    bnn_classes_run(conv, in, scratch, out, bnn_run_steps, conv->steps, conv->words);
}

void bnn_conv_class_offsets(const bnn_classes_t *conv, const uint32_t *in, uint32_t *scratch,
                            uint32_t *out)
{
    bnn_classes_run(conv, in, scratch, out, bnn_run_offsets, conv->places, 0);
}
