/* The C client with the random bytes of the example in RFC 7677, pushing one frame. */

#define INGEST_MAIN
#define main unused_main
#include "ingest_device.c"
#undef main

static void rfc7677_random(uint8_t *data, size_t size)
{
    unbase64("rOprNGfwEbeRWgbNEkqO", 20, data, size);
}

int main(int argc, char **argv)
{
    static uint8_t memory[256];
    static struct ingest_device device;
    struct tcp tcp = {.fd = -1};
    struct ingest_setup setup = {.name = "user", .token = "pencil", .random = rfc7677_random};

    (void)unused_main;
    if (argc != 3)
        return 2;
    tcp.host = argv[1];
    tcp.port = argv[2];
    setup.transport = (struct ingest_transport){tcp_open, tcp_send, tcp_receive, tcp_close, &tcp};
    setup.storage = ingest_memory(memory, sizeof memory);
    if (ingest_begin(&device, &setup) || ingest_push(&device, "temp=20.5", 9) != INGEST_TAKEN)
        return 1;
    input.is_over = 1;
    run(&device, &tcp);
    return device.count != 0;
}
