#include "bnn_port.h"
#include "bnn_server.h"

int main(void)
{
    bnn_port_init();
    bnn_server_run();
    return 0; /* never reached; some compilers want it all the same */
}
