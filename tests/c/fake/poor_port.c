/*
 * The host port with a receive buffer too small for a second request, which
 * also claims, once, that it lost bytes.
 */
#define bnn_port_capacity posix_capacity
#define bnn_port_overrun posix_overrun
#include "bnn_port_posix.c"
#undef bnn_port_capacity
#undef bnn_port_overrun

uint32_t bnn_port_capacity(void)
{
    return 512;
}

bool bnn_port_overrun(void)
{
    static bool told;
    bool first = !told && received > 0;

    told = told || first;
    return first;
}
