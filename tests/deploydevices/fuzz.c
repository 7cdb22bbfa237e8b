/*
 * The C client against a listener that says anything: bytes of chance, and replies that are almost
 * right, in pieces of any size. The sanitizers, and the checks below, see what it must never do.
 *
 *     fuzz SEED REPLIES
 */

#include "ingest_device.c"

#include <stdio.h>
#include <stdlib.h>

enum { QUEUE = 3000 };

static uint32_t dice_state;

static uint32_t dice(uint32_t sides)
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 17;
    dice_state ^= dice_state << 5;
    return (uint32_t)((uint64_t)dice_state * sides >> 32);
}

static struct ingest_device device;
static char said[2000]; /* what the listener says next, and how much of it was read */
static size_t said_size, said_read;

static void say_more(const char *text)
{
    size_t size = strlen(text);

    if (size > sizeof said - said_size)
        size = sizeof said - said_size;
    memcpy(said + said_size, text, size);
    said_size += size;
}

/* A challenge that goes on with the device's own nonce, and is right but for what comes after. */
static void say_challenge(void)
{
    static const char *const iterations[] = {"4096", "4095", "1000001", "99999999999999999999", ""};
    static const char *const salts[] = {"AAAA", "QUJDREVGR0g=", "=", "", "AA"};
    char text[400], encoded[600];
    int size = snprintf(text, sizeof text, "r=%s%.*s,s=%s,i=%s%s", device.nonce, (int)dice(250),
                        "0123456789012345678901234567890123456789012345678901234567890123456789012345"
                        "0123456789012345678901234567890123456789012345678901234567890123456789012345"
                        "0123456789012345678901234567890123456789012345678901234567890123456789012345"
                        "0123456789012345678901234567890123456789",
                        salts[dice(8) ? 0 : dice(5)], iterations[dice(8) ? 0 : dice(5)],
                        dice(4) ? "" : ",m=x");

    base64((const uint8_t *)text, (size_t)size, encoded);
    say_more("+ ");
    say_more(encoded);
}

static void say_ok(void)
{
    char text[200], inner[47] = "v=", outer[65];

    base64(device.expected, sizeof device.expected, inner + 2);
    base64((const uint8_t *)inner, 46, outer);
    snprintf(text, sizeof text, "OK device=d data=%s next=%lu max_frame=9", outer,
             dice(3) ? (unsigned long)device.first + dice(4) : 18446744073709551615UL);
    say_more(text);
}

static void think(void)
{
    static const char *const replies[] = {
        "ERR busy wait", "ERR bad-frame", "ERR ", "ERR frame-too-long x", "ERR idle-timeout",
        "OK next=1", "OK", "OK next=", "OK next=0", "OK =", "ACK", "ACK ", "ACK 1x", "+", "+ ", "",
        "ACK 18446744073709551615", "ACK 99999999999999999999999", "OK next next=5 data",
    };
    char number[40];
    uint32_t i, kind = dice(8);

    if (dice(4) > 0) /* mostly what is due */
        kind = device.state == INGEST_CHALLENGED ? 1 : device.state == INGEST_PROVING ? 3 : 5;
    said_size = said_read = 0;
    if (kind == 0)
        for (i = dice(sizeof said - 1); i > 0; i--)
            said[said_size++] = (char)dice(256);
    else if (kind < 3)
        say_challenge();
    else if (kind < 5)
        say_ok();
    else if (kind < 7) {
        snprintf(number, sizeof number, "ACK %lu", (unsigned long)device.first + dice(4));
        say_more(number);
    } else
        say_more(replies[dice(sizeof replies / sizeof *replies)]);
    if (dice(8) == 0 && said_size > 0)
        said[dice((uint32_t)said_size)] = (char)dice(256);
    if (dice(50) > 0 && said_size < sizeof said)
        said[said_size++] = '\n';
}

static int tcp_opens(void *context)
{
    (void)context;
    said_size = said_read = 0;
    return dice(20) == 0 ? -1 : 0;
}

static long tcp_takes(void *context, const uint8_t *data, size_t size)
{
    (void)context, (void)data;
    return dice(200) == 0 ? -1 : (long)dice((uint32_t)size + 1);
}

static long tcp_gives(void *context, uint8_t *data, size_t size)
{
    size_t part = said_size - said_read;

    (void)context;
    if (part > size)
        part = size;
    if (part > 1 && dice(3) == 0)
        part = dice((uint32_t)part) + 1;
    memcpy(data, said + said_read, part);
    said_read += part;
    return dice(300) == 0 ? -1 : (long)part;
}

static void tcp_ends(void *context)
{
    (void)context;
}

static void chance(uint8_t *data, size_t size)
{
    while (size-- > 0)
        *data++ = (uint8_t)dice(256);
}

int main(int argc, char **argv)
{
    static uint8_t memory[QUEUE];
    struct ingest_setup setup = {.name = "sensor-1", .token = "s3cr3t", .random = chance};
    unsigned long replies, running = 0, taken = 0;
    uint32_t now = 0;

    dice_state = (uint32_t)strtoul(argc > 1 ? argv[1] : "1", NULL, 10);
    setup.transport = (struct ingest_transport){tcp_opens, tcp_takes, tcp_gives, tcp_ends, NULL};
    setup.storage = ingest_memory(memory, sizeof memory);
    if (ingest_begin(&device, &setup))
        return 1;
    for (replies = strtoul(argc > 2 ? argv[2] : "1", NULL, 10); replies > 0; replies--) {
        char frame[300];
        memset(frame, 'x', sizeof frame);
        taken += ingest_push(&device, frame, dice(sizeof frame)) == INGEST_TAKEN;
        now += dice(10) ? dice(100) : dice(1000000);
        if (is_connected(&device) && said_read == said_size)
            think();
        ingest_poll(&device, now);
        running += device.state == INGEST_RUNNING;
        if (device.used + device.freed > capacity(&device) || device.sent > device.count
            || device.in_doubt > device.count || device.head >= capacity(&device)
            || device.line_size >= sizeof device.line || device.out_end > sizeof device.out)
            return 2;
        if (device.state == INGEST_STOPPED && (strcmp(device.error, "storage") == 0
                                               || ingest_begin(&device, &setup)))
            return 3;
    }
    printf("%lu running, %lu taken\n", running, taken);
    return 0;
}
