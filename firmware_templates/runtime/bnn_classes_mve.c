/* Convolutions by sign-pattern classes, four sets of filters at a time. */
#include "bnn_classes_mve.h"

#include "bnn_classes_internal.h"
#include "bnn_classes_internal_mve.h"

/* The low planes of a sum. */
typedef struct bnn_low_mve {
    bnn_vec_t ones, twos, fours;
} bnn_low_mve_t;

#if defined(BNN_HELIUM) && defined(__GNUC__)
/* In assembly, as compilers load all entries first, and spill. */
#define BNN_ENTRY_ASM(to, by)                                                                      \
    "vldrh.u32 %q[" by "], [%[at]], #8\n\t"                                                        \
    "vldrw.u32 %q[" to "], [%[x], %q[" by "], uxtw #2]\n\t"
/* sum gets sum + a + b, the carry goes to a; t is used. */
#define BNN_VEC_ADD3_ASM(sum, a, b, t)                                                             \
    "veor %q[" t "], %q[" sum "], %q[" a "]\n\t"                                                   \
    "vand %q[" a "], %q[" a "], %q[" sum "]\n\t"                                                   \
    "veor %q[" sum "], %q[" t "], %q[" b "]\n\t"                                                   \
    "vand %q[" t "], %q[" t "], %q[" b "]\n\t"                                                     \
    "vorr %q[" a "], %q[" a "], %q[" t "]\n\t"
/* Two entries are added to the ones; t and by are used. */
#define BNN_PAIR_ASM(a, b, t, by)                                                                  \
    BNN_ENTRY_ASM(a, by) BNN_ENTRY_ASM(b, by) BNN_VEC_ADD3_ASM("ones", a, b, t)
#define BNN_QUAD_ASM(a, b, c, t)                                                                   \
    BNN_PAIR_ASM(a, b, c, t)                                                                       \
    BNN_PAIR_ASM(b, c, t, t)                                                                       \
    BNN_VEC_ADD3_ASM("twos", a, b, c)

/* Eight entries are added to three planes; the carry, worth eight, is returned. */
static inline bnn_vec_t bnn_vec_octet(bnn_low_mve_t *low, const uint32_t *x, const uint16_t **from)
{
    const uint16_t *at = *from;
    bnn_vec_t ones = low->ones, twos = low->twos, fours = low->fours, a, b, c, d, e;
    __asm__ volatile(BNN_QUAD_ASM("a", "b", "c", "d") BNN_QUAD_ASM("b", "c", "d", "e")
                         BNN_VEC_ADD3_ASM("fours", "a", "b", "c")
                     : [ones] "+w"(ones), [twos] "+w"(twos), [fours] "+w"(fours), [a] "=&w"(a),
                       [b] "=&w"(b), [c] "=&w"(c), [d] "=&w"(d), [e] "=&w"(e), [at] "+r"(at)
                     : [x] "r"(x)
                     : "memory");
    *low = (bnn_low_mve_t){ones, twos, fours};
    *from = at;
    return a;
}

/* Four entries, and the carry is worth four. */
static inline bnn_vec_t bnn_vec_quad(bnn_low_mve_t *low, const uint32_t *x, const uint16_t **from)
{
    const uint16_t *at = *from;
    bnn_vec_t ones = low->ones, twos = low->twos, a, b, c, d;
    __asm__ volatile(BNN_QUAD_ASM("a", "b", "c", "d")
                     : [ones] "+w"(ones), [twos] "+w"(twos), [a] "=&w"(a), [b] "=&w"(b),
                       [c] "=&w"(c), [d] "=&w"(d), [at] "+r"(at)
                     : [x] "r"(x)
                     : "memory");
    low->ones = ones;
    low->twos = twos;
    *from = at;
    return a;
}
#else
/* Four entries are added to two planes; the carry, worth four, is returned. */
static inline bnn_vec_t bnn_vec_quad(bnn_low_mve_t *low, const uint32_t *x, const uint16_t **from)
{
    bnn_vec_t v[4];

    for (uint32_t i = 0; i < 4u; i++, *from += 4) {
        v[i] = bnn_vec_gather(x, bnn_vec_halves(*from));
    }
    const bnn_vec_t a = bnn_vec_add3(&low->ones, v[0], v[1]);
    const bnn_vec_t b = bnn_vec_add3(&low->ones, v[2], v[3]);
    return bnn_vec_add3(&low->twos, a, b);
}

/* Eight entries, and the carry is worth eight. */
static inline bnn_vec_t bnn_vec_octet(bnn_low_mve_t *low, const uint32_t *x, const uint16_t **from)
{
    const bnn_vec_t a = bnn_vec_quad(low, x, from), b = bnn_vec_quad(low, x, from);

    return bnn_vec_add3(&low->fours, a, b);
}
#endif

static inline void bnn_vec_widen(uint32_t *number, uint32_t planes, uint32_t wide)
{
    for (; planes < wide; planes++) {
        bnn_vec_store(number + 4u * planes, bnn_vec_all(0));
    }
}

/* Adds a bit to the planes of a number in memory. */
static inline void bnn_vec_ripple(uint32_t *number, uint32_t first, uint32_t planes,
                                  bnn_vec_t carry)
{
    for (uint32_t p = first; p < planes; p++) {
        const bnn_vec_t plane = bnn_vec_load(number + 4u * p);
        bnn_vec_store(number + 4u * p, bnn_vec_xor(plane, carry));
        carry = bnn_vec_and(plane, carry);
    }
}

/* The sums over all classes of a vector; returns the rest of the list. */
static inline const uint16_t *bnn_sum_vectors(const uint16_t *at, const uint32_t *x,
                                              uint32_t *number, uint32_t classes, uint32_t planes,
                                              uint32_t stride)
{
    for (; classes > 0; classes--, number += 4u * stride) {
        const bnn_vec_t zero = bnn_vec_all(0);
        bnn_low_mve_t low = {zero, zero, zero};
        uint32_t quads = *at++;
        bnn_vec_widen(number, 3, planes);
        for (; quads >= 4u; quads -= 4u) {
            const bnn_vec_t carry = bnn_vec_octet(&low, x, &at);
            bnn_vec_t other = bnn_vec_octet(&low, x, &at), sum = bnn_vec_load(number + 12);
            other = bnn_vec_add3(&sum, other, carry);
            bnn_vec_store(number + 12, sum);
            bnn_vec_ripple(number, 4, planes, other);
        }
        if (quads >= 2u) {
            bnn_vec_ripple(number, 3, planes, bnn_vec_octet(&low, x, &at));
            quads -= 2u;
        }
        if (quads != 0) {
            const bnn_vec_t carry = bnn_vec_quad(&low, x, &at);
            bnn_vec_ripple(number, 3, planes, bnn_vec_and(low.fours, carry));
            low.fours = bnn_vec_xor(low.fours, carry);
        }
        bnn_vec_store(number, low.ones);
        bnn_vec_store(number + 4, low.twos);
        bnn_vec_store(number + 8, low.fours);
    }
    return at;
}

/* The usual numbers of planes are constants to the compiler, which unrolls their loops. */
static const uint16_t *bnn_sum_any(const uint16_t *at, const uint32_t *x, uint32_t *number,
                                   uint32_t classes, uint32_t planes, uint32_t stride)
{
#if defined(BNN_HELIUM)
    switch (planes) {
    case 6:
        return bnn_sum_vectors(at, x, number, classes, 6, stride);
    case 7:
        return bnn_sum_vectors(at, x, number, classes, 7, stride);
    case 8:
        return bnn_sum_vectors(at, x, number, classes, 8, stride);
    case 9:
        return bnn_sum_vectors(at, x, number, classes, 9, stride);
    default:
        break;
    }
#endif
    return bnn_sum_vectors(at, x, number, classes, planes, stride);
}

/* sum = a + b, count times, of as many planes each; a sum has one more. */
static void bnn_vec_add_numbers(uint32_t *sum, const uint32_t *a, const uint32_t *b,
                                uint32_t count, uint32_t planes, uint32_t stride)
{
    const uint32_t rest = 4u * (stride - planes);

    for (; count > 0; count--, sum += rest, a += rest, b += rest) {
        bnn_vec_t carry = bnn_vec_all(0);
        for (uint32_t i = planes; i > 0; i--, sum += 4, a += 4, b += 4) {
            const bnn_vec_t left = bnn_vec_load(a), right = bnn_vec_load(b);
            bnn_vec_t total = left;
            const bnn_vec_t next = bnn_vec_add3(&total, right, carry);
            bnn_vec_store(sum, total);
            carry = next;
        }
        bnn_vec_store(sum, carry);
    }
}

/*
 * From the sums of the classes, m to the first of them and M of the filters
 * 1, 2 .. to their marks.  Bit k - 1 of a class says that filter k disagrees.
 */
static void bnn_vec_fold(const bnn_classes_mve_t *conv, const bnn_room_mve_t *room,
                         uint32_t filters)
{
    const uint32_t stride = conv->stride, step = 4u * stride;
    uint32_t planes = conv->run_planes;

    for (uint32_t k = filters - 1; k > 0; k--, planes++) {
        const uint32_t half = 1u << (k - 1);
        uint32_t *const upper = room->sums + half * step;
        uint32_t *const mark = room->marks + k * step;
        const uint32_t *from = upper;
        uint32_t count = half, sum_planes = planes;
        for (; count > 2; sum_planes++, from = room->more) {
            count /= 2;
            bnn_vec_add_numbers(room->more, from, from + count * step, count, sum_planes, stride);
        }
        if (count == 2) {
            bnn_vec_add_numbers(mark, from, from + step, 1, sum_planes, stride);
            sum_planes++;
        } else {
            for (uint32_t p = 0; p < sum_planes; p++) {
                bnn_vec_store(mark + 4u * p, bnn_vec_load(from + 4u * p));
            }
        }
        bnn_vec_widen(mark, sum_planes, conv->planes);
        bnn_vec_add_numbers(room->sums, room->sums, upper, half, planes, stride);
    }
    bnn_vec_widen(room->sums, planes, conv->planes);
}

/* One plane of m - 2 M + addend; less is the complement of the addend's. */
static inline bnn_vec_t bnn_vec_weigh(bnn_vec_t m, bnn_vec_t twice, bnn_vec_t less,
                                      bnn_vec_t *saved, bnn_vec_t *carry)
{
    /* m + ~twice + addend, and 1, with which saved began: two carries go on. */
    const bnn_vec_t partial = bnn_vec_xor(m, twice), sum = bnn_vec_xor(partial, less);
    const bnn_vec_t both = bnn_vec_xor(sum, *saved), value = bnn_vec_xor(both, *carry);
    *carry = bnn_vec_or(bnn_vec_and(sum, *saved), bnn_vec_and(both, *carry));
    *saved = bnn_vec_orn(bnn_vec_bic(m, twice), bnn_vec_or(partial, less));
    return value;
}

/* The planes of m - 2 M + addend modulo 2^planes; returns the last, that of the sign. */
static bnn_vec_t bnn_vec_signs_of(const uint32_t *m, const uint32_t *mark, bnn_vec_t addend,
                                  uint32_t planes)
{
    bnn_vec_t saved = bnn_vec_all(0xFFFFFFFFu), carry = bnn_vec_all(0), twice = carry;
    bnn_vec_t value = carry;

    for (; planes > 0; planes--, m += 4, mark += 4) {
        value = bnn_vec_weigh(bnn_vec_load(m), twice, bnn_vec_signs(addend), &saved, &carry);
        twice = bnn_vec_load(mark);
        addend = bnn_vec_left(addend, 1);
    }
    return value;
}

/* The same with an addend for each lane, in planes. */
static bnn_vec_t bnn_vec_signs_of_lanes(const uint32_t *m, const uint32_t *mark,
                                        const uint32_t *addend, uint32_t planes)
{
    bnn_vec_t saved = bnn_vec_all(0xFFFFFFFFu), carry = bnn_vec_all(0), twice = carry;
    bnn_vec_t value = carry;

    for (; planes > 0; planes--, m += 4, mark += 4, addend += 4) {
        value = bnn_vec_weigh(bnn_vec_load(m), twice, bnn_vec_load(addend), &saved, &carry);
        twice = bnn_vec_load(mark);
    }
    return value;
}

/* All planes, to value. */
static void bnn_vec_values(uint32_t *value, const uint32_t *m, const uint32_t *mark,
                           const uint32_t *edges, bnn_vec_t addend, uint32_t planes)
{
    bnn_vec_t saved = bnn_vec_all(0xFFFFFFFFu), carry = bnn_vec_all(0), twice = carry;

    for (uint32_t p = 0; p < planes; p++) {
        const bnn_vec_t less = edges != NULL ? bnn_vec_load(edges + 4u * p) : bnn_vec_signs(addend);
        const bnn_vec_t plane = bnn_vec_load(m + 4u * p);
        bnn_vec_store(value + 4u * p, bnn_vec_weigh(plane, twice, less, &saved, &carry));
        twice = bnn_vec_load(mark + 4u * p);
        addend = bnn_vec_left(addend, 1);
    }
}

/* A bit of every filter and lane, from rows of lanes to words of channels. */
static void bnn_vec_store_bits(const bnn_classes_mve_t *conv, const bnn_room_mve_t *room,
                               uint32_t first, uint32_t lanes, uint32_t *out)
{
    const uint32_t words = bnn_words(conv->shape.out_c);

    for (uint32_t i = conv->shape.out_c; i < 32u * words; i++) {
        room->rows[i] = 0;
    }
    for (uint32_t w = 0; w < words; w++) {
        uint32_t *const block = room->rows + 32u * w;
        const uint32_t flip = conv->flip != NULL ? conv->flip[w] : 0;
        bnn_transpose(block);
        for (uint32_t i = 0; i < lanes; i++) {
            out[(first + i) * words + w] = block[i] ^ flip;
        }
    }
}

/* Four filters' mismatches in bit-planes become sums; next is from one to the next. */
static void bnn_vec_store_sums(const bnn_classes_mve_t *conv, const bnn_room_mve_t *room,
                               uint32_t first, uint32_t lanes, uint32_t filter, uint32_t next,
                               uint32_t *out)
{
    for (uint32_t set = 0; set < 4u && filter < conv->shape.out_c; set++, filter += next) {
        for (uint32_t i = 0; i < 32u; i++) {
            room->block[i] = i < conv->planes ? room->value[4u * i + set] : 0;
        }
        bnn_transpose(room->block);
        for (uint32_t i = 0; i < lanes; i++) {
            const int32_t sum = (int32_t)room->taps[i] - 2 * (int32_t)room->block[i];
            const int32_t kept = conv->relu && sum < 0 ? 0 : sum;
            out[(first + i) * conv->shape.out_c + filter] = (uint32_t)kept;
        }
    }
}

static bnn_room_mve_t bnn_room_of(const bnn_classes_mve_t *conv, uint32_t *scratch)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t step = 4u * conv->stride, whole = 32u * bnn_words(s->out_c);
    uint32_t largest = 1;
    bnn_room_mve_t room;

    for (uint32_t v = 0; v < conv->vectors; v++) {
        largest = conv->sizes[v] > largest ? conv->sizes[v] : largest;
    }
    const uint32_t classes = 1u << (largest - 1u);
    room.sums = scratch;
    room.more = room.sums + classes * step;
    room.marks = room.more + (classes + 3u) / 4u * step;
    room.value = room.marks + largest * step;
    room.block = room.value + 128;
    room.taps = room.block + 32;
    room.lane = room.taps + 32;
    room.rows = room.lane + 32;
    room.down = room.rows + (whole > conv->slots ? whole : conv->slots);
    room.along = room.down + s->kernel_h;
    room.x = room.along + s->kernel_w;
    return room;
}

void bnn_conv_classes_mve(const bnn_classes_mve_t *conv, const uint32_t *in, uint32_t *scratch,
                          uint32_t *out)
{
    const bnn_shape_t *s = &conv->shape;
    const uint32_t positions = (uint32_t)s->out_h * s->out_w, step = 4u * conv->stride;
    const bnn_room_mve_t room = bnn_room_of(conv, scratch);
    uint32_t group = 0;

    bnn_vec_widen(room.marks, 0, conv->stride);
    for (uint32_t first = 0; first < positions; first += 32, group++) {
        const uint32_t left = positions - first, lanes = left < 32u ? left : 32u;
        const uint32_t *edges = NULL;
        const uint16_t *list = conv->places, *addend = conv->addend;
        uint32_t filter = 0;
        if (addend == NULL) {
            edges = conv->edges + (size_t)conv->edge[group] * conv->slots * conv->planes;
        }
        bnn_class_inputs_mve(s, in, &room, first, lanes);
        if (!conv->bits) {
            bnn_class_taps_mve(s, &room, lanes);
        }
        for (uint32_t v = 0; v < conv->vectors; v++) {
            const uint32_t size = conv->sizes[v];
            const uint32_t at[4] = {0, size, 2u * size, 3u * size};
            const bnn_vec_t places = bnn_vec_load(at);
            list = bnn_sum_any(list, room.x, room.sums, 1u << (size - 1u), conv->run_planes,
                               conv->stride);
            bnn_vec_fold(conv, &room, size);
            for (uint32_t k = 0; k < size; k++, filter++) {
                const uint32_t *mark = room.marks + k * step;
                bnn_vec_t less = bnn_vec_all(0);
                if (addend != NULL) {
                    less = bnn_vec_left(bnn_vec_halves(addend), 16);
                    addend += 4;
                }
                if (!conv->bits) {
                    bnn_vec_values(room.value, room.sums, mark, edges, less, conv->planes);
                    bnn_vec_store_sums(conv, &room, first, lanes, filter, size, out);
                } else {
                    const bnn_vec_t bits =
                        edges != NULL
                            ? bnn_vec_signs_of_lanes(room.sums, mark, edges, conv->planes)
                            : bnn_vec_signs_of(room.sums, mark, less, conv->planes);
                    bnn_vec_scatter(room.rows + filter, places, bits);
                }
                if (edges != NULL) {
                    edges += 4u * conv->planes;
                }
            }
            filter += 3u * size;
        }
        if (conv->bits) {
            bnn_vec_store_bits(conv, &room, first, lanes, out);
        }
    }
}
