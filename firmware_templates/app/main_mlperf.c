#include "bnn_mlperf.h"
#include "bnn_port.h"

int main(void)
{
    bnn_port_init();
    bnn_mlperf_run();
    return 0; /* never reached; some compilers want it all the same */
}
