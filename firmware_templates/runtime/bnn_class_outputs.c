/* What the class kernels write: from words over positions to words of channels, or to sums. */
#include "bnn_classes_internal.h"

void bnn_class_bits(const bnn_classes_t *conv, const bnn_room_t *room, uint32_t first,
                    uint32_t lanes, uint32_t *out)
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

void bnn_class_sums(const bnn_classes_t *conv, const bnn_room_t *room, uint32_t first,
                    uint32_t lanes, uint32_t filter, uint32_t *out)
{
    for (uint32_t i = conv->planes; i < 32; i++) {
        room->block[i] = 0;
    }
    bnn_transpose(room->block);
    for (uint32_t i = 0; i < lanes; i++) {
        const int32_t sum = (int32_t)room->taps[i] - 2 * (int32_t)room->block[i];
        out[(first + i) * conv->shape.out_c + filter] = bnn_rectified(sum, conv->relu);
    }
}
