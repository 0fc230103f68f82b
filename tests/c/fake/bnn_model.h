/* The sizes of the fake model; the tests override them to check other shapes. */
#ifndef BNN_MODEL_H
#define BNN_MODEL_H

#include "bnn.h"

#ifndef BNN_MODEL_INPUT_BYTES
#define BNN_MODEL_INPUT_BYTES 784
#endif
#ifndef BNN_MODEL_CLASSES
#define BNN_MODEL_CLASSES 10
#endif
#ifndef BNN_MODEL_LOGIT_BYTES
#define BNN_MODEL_LOGIT_BYTES 8
#endif
#define BNN_MODEL_LAYERS 3
#define BNN_MODEL_ARENA_WORDS 16

extern const bnn_model_t bnn_model;

#endif
