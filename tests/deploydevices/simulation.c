/*
 * The C client against a listener, a network and a medium that exist in memory only, and that fail
 * whenever the dice say so: connections break, the listener forgets what it has not acknowledged,
 * the device restarts, and its power goes away in the middle of any write.
 *
 *     simulation FIRST-SEED SEEDS STEPS
 *
 * The listener checks each frame as it comes: it must be the one behind the last, and whole. It
 * refuses every 11th for ever; so the frame that it stores as number k is frame k + (k - 1) / 10.
 */

#include "ingest_device.c"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

enum { MEDIUM = 700, UNSYNCED = 64, REFUSED = 11 };

static uint32_t dice_state, seed;

static uint32_t dice(uint32_t sides)
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 17;
    dice_state ^= dice_state << 5;
    return (uint32_t)((uint64_t)dice_state * sides >> 32);
}

static void fail(const char *what, unsigned long number)
{
    printf("seed %lu: %s (%lu)\n", (unsigned long)seed, what, number);
    exit(1);
}

/* Frames. */

static size_t make_frame(uint32_t number, char *text)
{
    static const int sizes[] = {0, 3, 20, 90, 200};
    int begin = sprintf(text, "%lu:", (unsigned long)number), size = sizes[number * 7 % 11 % 5];

    memset(text + begin, 'a' + (int)(number % 26), (size_t)size);
    memcpy(text + begin + size, ".", 2);
    return (size_t)(begin + size + 1);
}

/* The listener: `durable` of the frames that it has `received` survive its crash. */

static struct {
    uint32_t received, durable, acknowledged;
    char line[512];
    size_t size;
    int is_authenticated, is_closing;
} listener;

static struct {
    int is_open;
    char to_listener[1024], to_device[1024];
    size_t going, coming;
} network;

static unsigned long frames, power_cuts, restarts, breaks, crashes, refusals;

static void answer(const char *line)
{
    size_t size = strlen(line);

    if (network.coming + size > sizeof network.to_device)
        fail("the device does not listen", network.coming);
    memcpy(network.to_device + network.coming, line, size);
    network.coming += size;
}

static void acknowledge(void)
{
    char line[64];

    if (listener.durable == listener.acknowledged)
        return;
    listener.acknowledged = listener.durable;
    sprintf(line, "ACK %lu\n", (unsigned long)listener.durable);
    answer(line);
}

static void close_with(const char *error)
{
    listener.durable = listener.received;
    acknowledge();
    answer(error);
    listener.is_closing = 1;
}

static void take_frame(void)
{
    uint32_t following = listener.received + 1;
    uint32_t number = following + (following - 1) / (REFUSED - 1);
    char expected[512];

    make_frame(number, expected);
    if (strcmp(listener.line, expected) == 0) {
        listener.received++;
        return;
    }
    if (number % REFUSED == 1) {
        make_frame(number - 1, expected);
        if (strcmp(listener.line, expected) == 0) {
            refusals++;
            close_with("ERR bad-frame for ever\n");
            return;
        }
    }
    printf("%s\n", listener.line);
    fail("another frame than the one that follows", number);
}

static void take_line_of_device(void)
{
    char ok[128];

    if (listener.is_authenticated) {
        take_frame();
        return;
    }
    if (strcmp(listener.line, "AUTH PLAIN AGQAdA==") != 0)
        fail("no login", 0);
    listener.is_authenticated = 1;
    listener.durable = listener.acknowledged = listener.received;
    sprintf(ok, "OK time=now device=d next=%lu max_frame=500\n", listener.received + 1UL);
    answer(ok);
}

static void deliver(size_t size)
{
    size_t i;

    for (i = 0; i < size && !listener.is_closing; i++) {
        char byte = network.to_listener[i];
        if (byte != '\n') {
            if (listener.size == sizeof listener.line - 1)
                fail("a line without end", listener.size);
            listener.line[listener.size++] = byte;
            continue;
        }
        listener.line[listener.size] = '\0';
        listener.size = 0;
        if (listener.line[0] != '\0')
            take_line_of_device();
    }
    network.going -= size;
    memmove(network.to_listener, network.to_listener + size, network.going);
}

/* The transport. */

static int open_network(void *context)
{
    (void)context;
    if (network.is_open)
        fail("two connections", 0);
    if (dice(4) == 0)
        return -1;
    memset(&network, 0, sizeof network);
    network.is_open = 1;
    listener.size = 0;
    listener.is_authenticated = listener.is_closing = 0;
    return 0;
}

static long send_over_network(void *context, const uint8_t *data, size_t size)
{
    size_t room = sizeof network.to_listener - network.going;

    (void)context;
    if (!network.is_open || listener.is_closing)
        return -1;
    if (size > room)
        size = room;
    size = dice((uint32_t)size + 1);
    memcpy(network.to_listener + network.going, data, size);
    network.going += size;
    return (long)size;
}

static long receive_from_network(void *context, uint8_t *data, size_t size)
{
    (void)context;
    if (!network.is_open || (listener.is_closing && network.coming == 0))
        return -1;
    if (size > network.coming)
        size = network.coming;
    size = dice((uint32_t)size + 1);
    memcpy(data, network.to_device, size);
    network.coming -= size;
    memmove(network.to_device, network.to_device + size, network.coming);
    return (long)size;
}

static void close_network(void *context)
{
    (void)context;
    network.is_open = 0;
}

/* The medium: what was not synced is lost, or not, or half of it is, when the power goes away. */

static uint8_t durable_bytes[MEDIUM], bytes[MEDIUM];
static struct {
    uint32_t at, size;
} unsynced[UNSYNCED];
static uint32_t writes;
static jmp_buf power;

static void lose_power(void)
{
    uint32_t i;

    power_cuts++;
    for (i = 0; i < writes; i++) {
        uint32_t kept = dice(3) == 0 ? dice(unsynced[i].size + 1) : dice(2) * unsynced[i].size;
        memcpy(durable_bytes + unsynced[i].at, bytes + unsynced[i].at, kept);
    }
    memcpy(bytes, durable_bytes, MEDIUM);
    writes = 0;
    network.is_open = 0;
    longjmp(power, 1);
}

static int read_medium(void *context, uint32_t at, void *data, size_t size)
{
    (void)context;
    if (at + size > MEDIUM)
        fail("read beyond the medium", at);
    memcpy(data, bytes + at, size);
    return 0;
}

static int write_medium(void *context, uint32_t at, const void *data, size_t size)
{
    (void)context;
    if (at + size > MEDIUM || writes == UNSYNCED)
        fail("write beyond the medium", at);
    memcpy(bytes + at, data, size);
    unsynced[writes].at = at;
    unsynced[writes++].size = (uint32_t)size;
    if (dice(400) == 0)
        lose_power();
    return 0;
}

static int sync_medium(void *context)
{
    (void)context;
    if (dice(400) == 0)
        lose_power();
    memcpy(durable_bytes, bytes, MEDIUM);
    writes = 0;
    return 0;
}

static void random_bytes(uint8_t *data, size_t size)
{
    while (size-- > 0)
        *data++ = (uint8_t)dice(256);
}

/* The run. `taken` of the device's frames were promised to be kept. */

static struct ingest_device device;
static uint32_t taken, now;
static int is_pushing;

static void begin(void)
{
    struct ingest_setup setup = {.name = "d", .token = "t", .mechanism = INGEST_PLAIN};

    setup.transport = (struct ingest_transport){open_network, send_over_network,
                                                receive_from_network, close_network, NULL};
    setup.storage = (struct ingest_storage){read_medium, write_medium, sync_medium, NULL, MEDIUM};
    setup.random = random_bytes;
    if (ingest_begin(&device, &setup))
        fail("the queue can't be read", 0);
    if (device.taken != taken && !(is_pushing && device.taken == taken + 1))
        fail("the queue has lost a frame", taken);
    taken = device.taken;
    is_pushing = 0;
}

static void push(void)
{
    char text[512];
    size_t size = make_frame(taken + 1, text);
    enum ingest_result result;

    is_pushing = 1;
    result = ingest_push(&device, text, size);
    is_pushing = 0;
    if (result == INGEST_TAKEN)
        taken++;
    else if (result != INGEST_FULL)
        fail("the frame was not taken", (unsigned long)result);
}

static void step(int may_push, int may_fail)
{
    uint32_t what = dice(100);

    may_fail = may_fail && dice(5) == 0;
    if (what < 40 && may_push) {
        push();
    } else if (what < 70) {
        uint32_t wait;
        now += dice(20) == 0 ? dice(700000) : 0;
        wait = ingest_poll(&device, now);
        if (wait == 0 && device.state == INGEST_RUNNING)
            fail("a loop that never rests", device.sent);
        now += wait % 300001 * dice(2);
    } else if (what < 85 && network.is_open) {
        deliver(dice((uint32_t)network.going + 1));
    } else if (what < 94 && network.is_open && listener.is_authenticated && !listener.is_closing) {
        listener.durable += dice(listener.received - listener.durable + 1);
        acknowledge();
    } else if (what == 94 && may_fail) {
        breaks++;
        network.is_open = 0;
    } else if (what == 95 && may_fail && network.is_open && !listener.is_closing) {
        close_with(dice(2) ? "ERR shutting-down for now\n" : "ERR idle-timeout at last\n");
    } else if (what == 96 && may_fail) {
        crashes++;
        network.is_open = 0;
        listener.received = listener.durable;
    } else if (what == 97 && may_fail) {
        restarts++;
        network.is_open = 0;
        begin();
    } else if (what == 98 && may_fail) {
        lose_power();
    }
    if (device.state == INGEST_STOPPED)
        fail(device.error, 0);
    if (device.out_of_step != 0)
        fail("out of step", (unsigned long)listener.received);
}

static void run_once(unsigned long steps)
{
    static unsigned long done;

    memset(&listener, 0, sizeof listener);
    memset(&network, 0, sizeof network);
    memset(bytes, 0, MEDIUM);
    memset(durable_bytes, 0, MEDIUM);
    dice_state = seed * 2654435761U + 1;
    taken = writes = 0;
    now = UINT32_MAX - dice(1000000);
    done = 0;
    setjmp(power);
    begin();
    while (done++ < steps)
        step(1, 1);
    while (device.count > 0 && done++ < steps + 1000000)
        step(0, 0);
    if (listener.received + taken / REFUSED != taken || device.count > 0)
        fail("frames are missing at the end", taken);
    frames += taken;
}

int main(int argc, char **argv)
{
    uint32_t first, seeds, steps;

    if (argc != 4)
        return 2;
    first = (uint32_t)atol(argv[1]);
    seeds = (uint32_t)atol(argv[2]);
    steps = (uint32_t)atol(argv[3]);
    for (seed = first; seed < first + seeds; seed++)
        run_once(steps);
    printf("%lu frames, %lu power cuts, %lu restarts, %lu breaks, %lu crashes, %lu refusals\n",
           frames, power_cuts, restarts, breaks, crashes, refusals);
    return 0;
}
