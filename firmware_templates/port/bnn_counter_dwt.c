/* The core's cycle counter or nothing, for chips without a 32-bit timer. */
#include "bnn_counter.h"
#include "bnn_dwt.h"
#include "bnn_port.h"

static bool running;

uint8_t bnn_counter_start(void)
{
    running = bnn_dwt_start();
    return running ? BNN_COUNTER_DWT : BNN_COUNTER_NONE;
}

__attribute__((noinline)) uint32_t bnn_port_ticks(void)
{
    return running ? BNN_DWT_CYCCNT : 0u;
}
