/* Prints how long the C client waits between 300 attempts that all fail. */

#include "ingest_device.c"

#include <stdio.h>
#include <stdlib.h>

static int refuse(void *context)
{
    (void)context;
    return -1;
}

static void any(uint8_t *data, size_t size)
{
    while (size-- > 0)
        *data++ = (uint8_t)rand();
}

int main(void)
{
    static uint8_t memory[256];
    static struct ingest_device device;
    struct ingest_setup setup = {.name = "d", .token = "t", .random = any};
    uint32_t now = UINT32_MAX - 100000; /* the clock begins again meanwhile */
    int i;

    setup.transport.open = refuse;
    setup.storage = ingest_memory(memory, sizeof memory);
    if (ingest_begin(&device, &setup))
        return 1;
    for (i = 0; i < 300; i++) {
        uint32_t wait = ingest_poll(&device, now);
        if (wait > 1 && ingest_poll(&device, now + wait - 1) != 1)
            return 2; /* it did not wait */
        printf("%lu\n", (unsigned long)wait);
        now += wait;
    }
    return 0;
}
