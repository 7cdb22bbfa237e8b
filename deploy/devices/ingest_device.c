/*
 * A device's side of the ingest/1 protocol (ingest/PROTOCOL.md) in one file of C99.
 *
 * It takes frames into a bounded queue, which may survive a loss of power, and hands them to a
 * listener: each is stored once and in order, however often the connection breaks. It allocates no
 * memory, starts no thread and never waits; your main loop calls it.
 *
 *     static uint8_t memory[4096];
 *     struct ingest_setup setup = {
 *         .name = "sensor-1", .token = "s3cr3t", .mechanism = INGEST_SCRAM_SHA_256,
 *         .transport = ..., .random = ..., .storage = ingest_memory(memory, sizeof memory),
 *     };
 *     struct ingest_device device;
 *     ingest_begin(&device, &setup);
 *     for (;;) {
 *         if (there is a reading) ingest_push(&device, "temp=20.5", 9);
 *         ingest_poll(&device, millis());
 *     }
 *
 * To port it, write the four functions of `ingest_transport`, one that gives random bytes, and, for
 * a queue in flash or in a file, the three of `ingest_storage`. Part 5 shows all of them for POSIX.
 * With Arduino's `Client client` the four come down to:
 *
 *     open     client.connect(host, port) ? 0 : -1
 *     send     client.write(data, size)
 *     receive  client.available() ? client.read(data, size) : client.connected() ? 0 : -1
 *     close    client.stop()
 *
 * Other files that use it (C++ too) say:
 *
 *     #define INGEST_DECLARATIONS
 *     #include "ingest_device.c"
 *
 * Build the example program:  cc -std=c99 -O2 -DINGEST_MAIN -o ingest_device ingest_device.c
 * RAM:                        ./ingest_device --ram; cc -std=c99 -Os -c ingest_device.c &&
 *                             size ingest_device.o; -fstack-usage tells the stack
 */

#ifdef INGEST_MAIN
#define _XOPEN_SOURCE 700
#endif

#include <stddef.h>
#include <stdint.h>

/* ---- 1. What you call, and what you give --------------------------------------------------- */

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of one message of the handshake, and of what is handed to the transport at once. */
#ifndef INGEST_BUFFER
#define INGEST_BUFFER 512
#endif
#if INGEST_BUFFER < 512
#error "INGEST_BUFFER: a message of the handshake needs 512 bytes"
#endif

/* A connection. None of these waits, except that `open` may, for some seconds. */
struct ingest_transport {
    int (*open)(void *context);                                         /* 0; -1: no connection */
    long (*send)(void *context, const uint8_t *data, size_t size);      /* bytes taken, perhaps 0 */
    long (*receive)(void *context, uint8_t *data, size_t size);         /* bytes, 0: none by now */
                                                                        /* -1 of both: broken */
    void (*close)(void *context); /* better by a reset than in good order: see tcp_open below */
    void *context;
};

/* Where the queue is. Each function returns 0, or -1 where the medium fails. */
struct ingest_storage {
    int (*read)(void *context, uint32_t at, void *data, size_t size);
    int (*write)(void *context, uint32_t at, const void *data, size_t size);
    int (*sync)(void *context); /* returns when what was written survives a loss of power */
    void *context;
    uint32_t size;              /* bytes; 64 are for the book-keeping, and 6 beside each frame */
};

/*
 * PLAIN shows the token to whoever reads the network: use it over TLS only (a transport may well be
 * TLS). SCRAM proves the token without sending it, and checks that the listener knows it too.
 */
enum ingest_mechanism { INGEST_SCRAM_SHA_256, INGEST_PLAIN };

struct ingest_setup {
    const char *name;  /* the strings must live as long as the device */
    const char *token; /* for SCRAM in ASCII, or already in the normal form of RFC 4013 */
    enum ingest_mechanism mechanism;
    struct ingest_transport transport;
    struct ingest_storage storage;
    void (*random)(uint8_t *data, size_t size); /* bytes that nobody can guess */
    uint32_t pause;    /* milliseconds of the first pause before a retry; 0: 1,000 */
};

enum ingest_state {
    INGEST_PAUSING,    /* no connection; tries again when the pause is over */
    INGEST_CHALLENGED, /* said who it is, and waits for the listener's challenge */
    INGEST_PROVING,    /* said all, and waits for the listener's OK */
    INGEST_RUNNING,    /* frames go out, acknowledgements come in */
    INGEST_STOPPED     /* does nothing until somebody has looked at `error`; `ingest_begin` again */
};

enum ingest_result {
    INGEST_TAKEN,    /* the frame is in the queue, and if that is a file, on the medium */
    INGEST_FULL,     /* no room before more is acknowledged: wait, or drop the frame */
    INGEST_NO_FRAME, /* empty, longer than the whole queue, or with a line end in it */
    INGEST_NO_DISK   /* the storage failed */
};

/* Read the first group as you like; leave the rest alone. */
struct ingest_device {
    enum ingest_state state;
    uint32_t count;       /* frames in the queue */
    uint32_t taken;       /* frames ever taken into it, those before a restart included */
    uint64_t first;       /* the listener's number of the oldest frame in the queue; 0: not known */
    uint32_t set_aside;   /* frames that the listener refuses for ever, and that were dropped */
    uint32_t out_of_step; /* how often the listener's numbers had nothing to do with the queue */
    char error[32];       /* why the last connection ended: the listener's code or a word of ours */

    struct ingest_setup setup;
    /* The queue: a ring of records, in bytes from the begin of the ring. */
    uint32_t head;        /* of the oldest record */
    uint32_t used;        /* bytes of all records */
    uint32_t freed;       /* bytes before `head` that the mark on the medium still counts as used */
    uint32_t generation;  /* of the mark */
    uint32_t in_doubt;    /* frames from `head` on that the listener may have */
    /* The connection. */
    uint32_t sent;        /* frames from `head` on that were handed to it, the last maybe in part */
    uint32_t cursor;      /* where the rest of that last one, or the next record, is */
    uint32_t left;        /* bytes of that rest, with its LF */
    uint8_t out[INGEST_BUFFER];
    size_t out_begin, out_end;
    char line[INGEST_BUFFER];
    size_t line_size;
    /* Time, in milliseconds. */
    uint32_t now, since, wait, pause;
    uint32_t broken;      /* when the last connection ended */
    uint8_t is_broken;    /* whether it did so without a word of the listener */
    /* SCRAM. The key costs seconds on a small processor, so it is kept for the next connection. */
    char nonce[21];
    uint8_t salt[64], salt_size;
    uint32_t iterations;
    uint8_t salted[32], expected[32];
};

/* Load what the queue holds. Returns 0; -1 with the reason in `error`. */
int ingest_begin(struct ingest_device *device, const struct ingest_setup *setup);

/* Take a frame: a line of text without its end, of any bytes but LF. */
enum ingest_result ingest_push(struct ingest_device *device, const void *frame, size_t size);

/*
 * Do whatever can be done without waiting. Call it when the transport has something to read, or has
 * room again, when a frame was pushed, and at the latest after the milliseconds that it returns.
 * `now` counts milliseconds and may start again at 0 after 2^32 of them.
 */
uint32_t ingest_poll(struct ingest_device *device, uint32_t now);

/* Tell whether it has bytes that wait for room in the transport. */
int ingest_wants_to_send(const struct ingest_device *device);

/* A queue in plain memory, for devices that may forget it when they lose power. */
struct ingest_storage ingest_memory(void *memory, uint32_t size);

#ifdef __cplusplus
}
#endif

#ifndef INGEST_DECLARATIONS

#include <string.h>

/* ---- 2. SHA-256 (FIPS 180-4), HMAC (RFC 2104), PBKDF2 (RFC 8018), base64 (RFC 4648) -------- */

struct sha256 {
    uint32_t state[8];
    uint64_t size;
    uint8_t block[64];
};

static const uint32_t SHA256_ROUNDS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotated(uint32_t word, int bits)
{
    return word >> bits | word << (32 - bits);
}

static void sha256_block(struct sha256 *hash)
{
    uint32_t w[16], s[8];
    int i;

    for (i = 0; i < 16; i++)
        w[i] = (uint32_t)hash->block[4 * i] << 24 | (uint32_t)hash->block[4 * i + 1] << 16
            | (uint32_t)hash->block[4 * i + 2] << 8 | hash->block[4 * i + 3];
    memcpy(s, hash->state, sizeof s);
    for (i = 0; i < 64; i++) {
        if (i >= 16) {
            uint32_t a = w[(i + 1) & 15], b = w[(i + 14) & 15];
            w[i & 15] += w[(i + 9) & 15] + (rotated(a, 7) ^ rotated(a, 18) ^ a >> 3)
                + (rotated(b, 17) ^ rotated(b, 19) ^ b >> 10);
        }
        uint32_t t1 = s[7] + (rotated(s[4], 6) ^ rotated(s[4], 11) ^ rotated(s[4], 25))
            + ((s[4] & s[5]) ^ (~s[4] & s[6])) + SHA256_ROUNDS[i] + w[i & 15];
        uint32_t t2 = (rotated(s[0], 2) ^ rotated(s[0], 13) ^ rotated(s[0], 22))
            + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (i = 0; i < 8; i++)
        hash->state[i] += s[i];
}

static void sha256_begin(struct sha256 *hash)
{
    static const uint32_t begin[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };
    memcpy(hash->state, begin, sizeof begin);
    hash->size = 0;
}

static void sha256_add(struct sha256 *hash, const void *data, size_t size)
{
    const uint8_t *byte = data;

    while (size-- > 0) {
        hash->block[hash->size++ & 63] = *byte++;
        if ((hash->size & 63) == 0)
            sha256_block(hash);
    }
}

static void sha256_end(struct sha256 *hash, uint8_t digest[32])
{
    uint64_t bits = hash->size * 8;
    uint8_t length[8];
    int i;

    sha256_add(hash, "\x80", 1);
    while ((hash->size & 63) != 56)
        sha256_add(hash, "", 1);
    for (i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha256_add(hash, length, 8);
    for (i = 0; i < 32; i++)
        digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - i % 4 * 8));
}

struct hmac {
    struct sha256 inner, outer;
};

static void hmac_begin(struct hmac *mac, const void *key, size_t size)
{
    uint8_t block[64] = {0};
    int i;

    sha256_begin(&mac->inner);
    sha256_begin(&mac->outer);
    if (size > sizeof block) { /* such a key is replaced by its hash */
        sha256_add(&mac->inner, key, size);
        sha256_end(&mac->inner, block);
        sha256_begin(&mac->inner);
    } else {
        memcpy(block, key, size);
    }
    for (i = 0; i < 64; i++)
        block[i] ^= 0x36;
    sha256_add(&mac->inner, block, sizeof block);
    for (i = 0; i < 64; i++)
        block[i] ^= 0x36 ^ 0x5c;
    sha256_add(&mac->outer, block, sizeof block);
}

static void hmac_add(struct hmac *mac, const void *data, size_t size)
{
    sha256_add(&mac->inner, data, size);
}

static void hmac_end(struct hmac *mac, uint8_t digest[32])
{
    uint8_t inner[32];

    sha256_end(&mac->inner, inner);
    sha256_add(&mac->outer, inner, sizeof inner);
    sha256_end(&mac->outer, digest);
}

/* The first 32 bytes of PBKDF2 with HMAC-SHA-256, which are all that SCRAM needs. */
static void pbkdf2(const char *password, const uint8_t *salt, size_t salt_size, uint32_t iterations,
                   uint8_t key[32])
{
    struct hmac keyed, mac;
    uint8_t u[32];
    int i;

    hmac_begin(&keyed, password, strlen(password));
    mac = keyed;
    hmac_add(&mac, salt, salt_size);
    hmac_add(&mac, "\0\0\0\1", 4);
    hmac_end(&mac, u);
    memcpy(key, u, sizeof u);
    while (--iterations > 0) {
        mac = keyed;
        hmac_add(&mac, u, sizeof u);
        hmac_end(&mac, u);
        for (i = 0; i < 32; i++)
            key[i] ^= u[i];
    }
}

static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* `text` gets 4 characters for each 3 bytes that are begun, and a NUL. Returns the characters. */
static size_t base64(const uint8_t *data, size_t size, char *text)
{
    char *end = text;
    size_t i;

    for (i = 0; i < size; i += 3) {
        uint32_t bits = (uint32_t)data[i] << 16;
        if (i + 1 < size)
            bits |= (uint32_t)data[i + 1] << 8;
        if (i + 2 < size)
            bits |= data[i + 2];
        *end++ = BASE64[bits >> 18];
        *end++ = BASE64[bits >> 12 & 63];
        *end++ = i + 1 < size ? BASE64[bits >> 6 & 63] : '=';
        *end++ = i + 2 < size ? BASE64[bits & 63] : '=';
    }
    *end = '\0';
    return (size_t)(end - text);
}

/* `data` may be `text` itself. Returns the bytes; -1: it is no base64, or more than `room`. */
static long unbase64(const char *text, size_t size, uint8_t *data, size_t room)
{
    uint32_t bits = 0;
    size_t i, used = 0;

    if (size % 4 != 0)
        return -1;
    for (i = 0; i < 2 && size > 0 && text[size - 1] == '='; i++)
        size--;
    for (i = 0; i < size; i++) {
        const char *found = memchr(BASE64, text[i], 64);
        if (found == NULL)
            return -1;
        bits = bits << 6 | (uint32_t)(found - BASE64);
        if (i % 4 != 0) { /* the 2nd, 3rd and 4th character each complete a byte */
            if (used == room)
                return -1;
            data[used++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
        }
    }
    return (long)used;
}

/* ---- 3. The queue -------------------------------------------------------------------------- */

/*
 * The storage holds two slots of 32 bytes for the mark, and then a ring of records:
 *
 *     mark:    magic, generation, bytes of the ring, head, ordinal, first (8 bytes), check
 *     record:  size (2 bytes), check (4 bytes), the frame
 *
 * The ordinal of a record counts all frames ever taken, and is part of its check; so what is left
 * of an earlier round of the ring is never read as a record. All numbers are little-endian.
 *
 * A mark is written into the slot that does not hold the valid one. It need not follow every
 * acknowledgement, since the listener tells at login where it stands: it is written when `first`
 * can't be derived from it any more, and when the space before `head` is needed.
 *
 * All that is taken is synced before it is sent. Otherwise a loss of power could take a frame from
 * the queue that the listener has, and the numbers would be wrong from there on.
 */
#define MAGIC 0x31514749UL
enum { SLOT = 32, RING = 2 * SLOT, RECORD = 6 };

static void put32(uint8_t *data, uint32_t value)
{
    int i;

    for (i = 0; i < 4; i++)
        data[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get32(const uint8_t *data)
{
    return data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

/* CRC-32 of ISO-HDLC, continued from the `crc` of what came before (0 at the begin). */
static uint32_t crc32(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *byte = data;
    int i;

    for (crc = ~crc; size > 0; size--) {
        crc ^= *byte++;
        for (i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

static uint32_t capacity(const struct ingest_device *d)
{
    return d->setup.storage.size - RING;
}

static uint32_t advanced(const struct ingest_device *d, uint32_t at, uint32_t bytes)
{
    uint32_t straight = capacity(d) - at; /* at + bytes may be more than 32 bits hold */

    return bytes < straight ? at + bytes : bytes - straight;
}

static int ring_read(const struct ingest_device *d, uint32_t at, void *data, uint32_t size)
{
    const struct ingest_storage *s = &d->setup.storage;
    uint32_t straight = capacity(d) - at;

    if (size <= straight)
        return s->read(s->context, RING + at, data, size);
    return s->read(s->context, RING + at, data, straight)
        || s->read(s->context, RING, (uint8_t *)data + straight, size - straight);
}

static int ring_write(const struct ingest_device *d, uint32_t at, const void *data, uint32_t size)
{
    const struct ingest_storage *s = &d->setup.storage;
    uint32_t straight = capacity(d) - at;

    if (size <= straight)
        return s->write(s->context, RING + at, data, size);
    return s->write(s->context, RING + at, data, straight)
        || s->write(s->context, RING, (const uint8_t *)data + straight, size - straight);
}

/* Make `head` and `first` the ones that count after a restart. */
static int mark(struct ingest_device *d)
{
    const struct ingest_storage *s = &d->setup.storage;
    uint32_t generation = d->generation + 1;
    uint8_t slot[SLOT];

    put32(slot, MAGIC);
    put32(slot + 4, generation);
    put32(slot + 8, capacity(d));
    put32(slot + 12, d->head);
    put32(slot + 16, d->taken - d->count);
    put32(slot + 20, (uint32_t)d->first);
    put32(slot + 24, (uint32_t)(d->first >> 32));
    put32(slot + 28, crc32(0, slot, 28));
    if (s->write(s->context, (generation & 1) * SLOT, slot, SLOT) || s->sync(s->context))
        return -1;
    d->generation = generation;
    d->freed = 0;
    return 0;
}

/* Take the newer of the two marks. Returns 1; 0: there is none; -1: the storage failed. */
static int load_mark(struct ingest_device *d)
{
    const struct ingest_storage *s = &d->setup.storage;
    uint8_t slot[SLOT];
    int found = 0;
    uint32_t i;

    for (i = 0; i < 2; i++) {
        if (s->read(s->context, i * SLOT, slot, SLOT))
            return -1;
        if (get32(slot) != MAGIC || get32(slot + 28) != crc32(0, slot, 28))
            continue;
        if (get32(slot + 8) != capacity(d))
            return -1; /* somebody's queue, of another size: not ours to overwrite */
        if (found && (int32_t)(get32(slot + 4) - d->generation) < 0)
            continue;
        found = 1;
        d->generation = get32(slot + 4);
        d->head = get32(slot + 12);
        d->taken = get32(slot + 16);
        d->first = get32(slot + 20) | (uint64_t)get32(slot + 24) << 32;
    }
    return found;
}

static uint32_t check_of(uint32_t ordinal, const uint8_t size[2])
{
    uint8_t number[4];

    put32(number, ordinal);
    return crc32(crc32(0, number, sizeof number), size, 2);
}

/* Find the records behind the mark. The first one that is not whole was being written. */
static int load_records(struct ingest_device *d)
{
    for (;;) {
        uint8_t header[RECORD], data[64];
        uint32_t at = advanced(d, d->head, d->used), size, done, part, check;

        if (capacity(d) - d->used <= RECORD)
            return 0;
        if (ring_read(d, at, header, sizeof header))
            return -1;
        size = header[0] | (uint32_t)header[1] << 8;
        if (size == 0 || size > capacity(d) - d->used - RECORD)
            return 0;
        check = check_of(d->taken, header);
        for (done = 0; done < size; done += part) {
            part = size - done < sizeof data ? size - done : (uint32_t)sizeof data;
            if (ring_read(d, advanced(d, at, RECORD + done), data, part))
                return -1;
            check = crc32(check, data, part);
        }
        if (check != get32(header + 2))
            return 0;
        d->used += RECORD + size;
        d->count++;
        d->taken++;
    }
}

enum ingest_result ingest_push(struct ingest_device *d, const void *frame, size_t size)
{
    const struct ingest_storage *s = &d->setup.storage;
    uint8_t header[RECORD];
    uint32_t tail, need;

    /* An empty line would be a keep-alive, and a CR at the end would not arrive. */
    if (size == 0 || size > 65535 || RECORD + size > capacity(d)
        || memchr(frame, '\n', size) != NULL || ((const char *)frame)[size - 1] == '\r')
        return INGEST_NO_FRAME;
    need = RECORD + (uint32_t)size;
    if (need > capacity(d) - d->used)
        return INGEST_FULL;
    if (need > capacity(d) - d->used - d->freed && mark(d))
        return INGEST_NO_DISK;
    header[0] = (uint8_t)size;
    header[1] = (uint8_t)(size >> 8);
    put32(header + 2, crc32(check_of(d->taken, header), frame, size));
    tail = advanced(d, d->head, d->used);
    if (ring_write(d, tail, header, RECORD)
        || ring_write(d, advanced(d, tail, RECORD), frame, (uint32_t)size) || s->sync(s->context))
        return INGEST_NO_DISK;
    d->used += need;
    d->count++;
    d->taken++;
    return INGEST_TAKEN;
}

/* Drop the oldest frames. */
static int drop(struct ingest_device *d, uint64_t frames)
{
    uint8_t size[2];

    for (; frames > 0; frames--) {
        uint32_t bytes;
        if (ring_read(d, d->head, size, sizeof size))
            return -1;
        bytes = RECORD + (size[0] | (uint32_t)size[1] << 8);
        d->head = advanced(d, d->head, bytes);
        d->used -= bytes;
        d->freed += bytes;
        d->count--;
        d->in_doubt -= d->in_doubt > 0;
        d->sent -= d->sent > 0;
    }
    return 0;
}

static int memory_read(void *memory, uint32_t at, void *data, size_t size)
{
    memcpy(data, (uint8_t *)memory + at, size);
    return 0;
}

static int memory_write(void *memory, uint32_t at, const void *data, size_t size)
{
    memcpy((uint8_t *)memory + at, data, size);
    return 0;
}

static int memory_sync(void *memory)
{
    (void)memory;
    return 0;
}

struct ingest_storage ingest_memory(void *memory, uint32_t size)
{
    struct ingest_storage storage = {memory_read, memory_write, memory_sync, NULL, 0};

    storage.context = memory;
    storage.size = size;
    return storage;
}

/* ---- 4. The conversation ------------------------------------------------------------------- */

#define LONGEST_PAUSE 300000UL      /* milliseconds between two attempts */
#define HANDSHAKE_PATIENCE 40000UL  /* for OK, when thousands connect at once; 10 s of it to open */
#define STRAGGLER 60000UL           /* for the login of a connection that broke to arrive */
#define KEEP_ALIVE 600000UL         /* a listener cuts who says nothing for an hour */
#define MAX_ITERATIONS 1000000UL    /* so that nobody on the network can keep the device busy */
#define LONGEST_NAME 128            /* characters */
#define LONGEST_LOGIN 250           /* bytes of name and token: PLAIN must fit the buffer */

static void enter(struct ingest_device *d, enum ingest_state state)
{
    d->state = state;
    d->since = d->now;
}

static int is_connected(const struct ingest_device *d)
{
    return d->state != INGEST_PAUSING && d->state != INGEST_STOPPED;
}

static void hang_up(struct ingest_device *d, enum ingest_state state, const char *reason)
{
    size_t size = strcspn(reason, " ");

    if (is_connected(d))
        d->setup.transport.close(d->setup.transport.context);
    if (size >= sizeof d->error)
        size = sizeof d->error - 1;
    memcpy(d->error, reason, size);
    d->error[size] = '\0';
    enter(d, state);
}

static void stop(struct ingest_device *d, const char *reason)
{
    hang_up(d, INGEST_STOPPED, reason);
}

static void retry_at_once(struct ingest_device *d, const char *reason)
{
    hang_up(d, INGEST_PAUSING, reason);
    d->wait = 0;
}

/* The pause grows, and is random, so that a fleet does not return all at once. */
static void retry_later(struct ingest_device *d, const char *reason)
{
    uint32_t chance, half = d->pause / 2;

    hang_up(d, INGEST_PAUSING, reason);
    d->setup.random((uint8_t *)&chance, sizeof chance);
    d->wait = half + chance % (half + 1);
    d->pause = d->pause > LONGEST_PAUSE / 2 ? LONGEST_PAUSE : 2 * d->pause;
    d->broken = d->now;
    d->is_broken = 1;
}

/* The newer connection may be an older one of ours, whose login came late. */
static void replaced(struct ingest_device *d, const char *code)
{
    if (d->is_broken && d->now - d->broken < STRAGGLER)
        retry_later(d, code);
    else
        stop(d, code);
}

/* The frame behind the last acknowledged one is refused for ever: it is dropped and counted. */
static void set_aside(struct ingest_device *d, const char *code)
{
    if (d->sent == 0) {
        retry_later(d, code);
        return;
    }
    d->set_aside++;
    if (drop(d, 1) || mark(d)) /* the mark, because a frame is gone and no number with it */
        stop(d, "storage");
    else
        retry_at_once(d, code);
}

/* What to do about the listener's errors, in the handshake and after it. */
static const struct {
    const char *code;
    void (*in_handshake)(struct ingest_device *d, const char *code);
    void (*in_session)(struct ingest_device *d, const char *code);
} ERRORS[] = {
    {"auth-required", stop, stop},         /* not an ingest listener, or this file is broken */
    {"auth-failed", stop, stop},           /* an operator must act */
    {"mechanism-unsupported", stop, stop}, /* begin again with the other mechanism */
    {"plaintext-refused", stop, stop},     /* the token was shown: get a new one, and use SCRAM */
    {"replaced", replaced, replaced},      /* if not by itself, another device has this name */
    {"revoked", stop, stop},               /* an operator must act */
    {"bad-frame", stop, set_aside},
    {"frame-too-long", stop, set_aside},
    {"idle-timeout", retry_later, retry_at_once},
    /* Any other, auth-timeout, busy and shutting-down among them: retry later. */
};

static void take_error(struct ingest_device *d, const char *code)
{
    void (*react)(struct ingest_device *d, const char *code) = retry_later;
    size_t i, size = strcspn(code, " ");

    for (i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (strlen(ERRORS[i].code) == size && memcmp(ERRORS[i].code, code, size) == 0)
            react = d->state == INGEST_RUNNING ? ERRORS[i].in_session : ERRORS[i].in_handshake;
    react(d, code);
    d->is_broken = 0;
}

/* Text that is put together piece by piece. LONGEST_LOGIN and read_challenge see that it fits. */
struct text {
    char data[INGEST_BUFFER / 4 * 3 - 24];
    size_t size;
};

static void add(struct text *text, const void *data, size_t size)
{
    if (size <= sizeof text->data - text->size) {
        memcpy(text->data + text->size, data, size);
        text->size += size;
    }
}

static void add_string(struct text *text, const char *string)
{
    add(text, string, strlen(string));
}

/* Hand a message of the mechanism to the output, in base64. */
static void say(struct ingest_device *d, const char *prefix, const struct text *text)
{
    size_t size = strlen(prefix);

    memcpy(d->out, prefix, size);
    size += base64((const uint8_t *)text->data, text->size, (char *)d->out + size);
    d->out[size++] = '\n';
    d->out_begin = 0;
    d->out_end = size;
}

static void dial(struct ingest_device *d)
{
    struct text message = {.size = 0};
    uint8_t random[15];

    if (d->setup.transport.open(d->setup.transport.context)) {
        retry_later(d, "unreachable");
        return;
    }
    d->line_size = 0;
    d->sent = d->left = 0;
    if (d->setup.mechanism == INGEST_PLAIN) { /* RFC 4616: NUL name NUL token */
        add(&message, "", 1);
        add_string(&message, d->setup.name);
        add(&message, "", 1);
        add_string(&message, d->setup.token);
        say(d, "AUTH PLAIN ", &message);
        enter(d, INGEST_PROVING);
        return;
    }
    d->setup.random(random, sizeof random); /* RFC 5802: client-first-message */
    base64(random, sizeof random, d->nonce);
    add_string(&message, "n,,n=");
    add_string(&message, d->setup.name);
    add_string(&message, ",r=");
    add_string(&message, d->nonce);
    say(d, "AUTH SCRAM-SHA-256 ", &message);
    enter(d, INGEST_CHALLENGED);
}

/* HMAC of AuthMessage (RFC 5802, section 3), whose middle is the listener's message. */
static void sign(const struct ingest_device *d, const uint8_t key[32], const struct text *last,
                 const char *challenge, uint8_t signature[32])
{
    struct hmac mac;

    hmac_begin(&mac, key, 32);
    hmac_add(&mac, "n=", 2);
    hmac_add(&mac, d->setup.name, strlen(d->setup.name));
    hmac_add(&mac, ",r=", 3);
    hmac_add(&mac, d->nonce, strlen(d->nonce));
    hmac_add(&mac, ",", 1);
    hmac_add(&mac, challenge, strlen(challenge));
    hmac_add(&mac, ",", 1);
    hmac_add(&mac, last->data, last->size);
    hmac_end(&mac, signature);
}

static void derive_from(const char *label, const uint8_t salted[32], uint8_t key[32])
{
    struct hmac mac;

    hmac_begin(&mac, salted, 32);
    hmac_add(&mac, label, strlen(label));
    hmac_end(&mac, key);
}

/* Write client-final-message, and note what the listener has to answer. */
static void prove(struct ingest_device *d, const char *challenge, size_t nonce_size)
{
    struct text last = {.size = 0};
    struct sha256 hash;
    uint8_t key[32], stored[32], signature[32];
    char proof[45];
    int i;

    add_string(&last, "c=biws,");
    add(&last, challenge, nonce_size);
    derive_from("Client Key", d->salted, key);
    sha256_begin(&hash);
    sha256_add(&hash, key, sizeof key);
    sha256_end(&hash, stored);
    sign(d, stored, &last, challenge, signature);
    for (i = 0; i < 32; i++)
        key[i] ^= signature[i];
    base64(key, sizeof key, proof);
    derive_from("Server Key", d->salted, key);
    sign(d, key, &last, challenge, d->expected);
    add_string(&last, ",p=");
    add_string(&last, proof);
    say(d, "", &last);
    enter(d, INGEST_PROVING);
}

/* Read `r=<nonce>,s=<salt in base64>,i=<iterations>`, server-first-message of RFC 5802. */
static int read_challenge(struct ingest_device *d, const char *challenge, size_t *nonce_size)
{
    size_t own = strlen(d->nonce);
    const char *salt = strstr(challenge, ",s="), *iterations = strstr(challenge, ",i="), *digit;
    uint8_t bytes[sizeof d->salt];
    uint32_t number = 0;
    long size;

    if (salt == NULL || iterations == NULL || iterations < salt || salt - challenge > 200
        || strncmp(challenge, "r=", 2) != 0 || strncmp(challenge + 2, d->nonce, own) != 0
        || strchr(challenge, ',') != salt || strchr(salt + 1, ',') != iterations)
        return -1;
    *nonce_size = (size_t)(salt - challenge);
    size = unbase64(salt + 3, (size_t)(iterations - salt - 3), bytes, sizeof bytes);
    digit = iterations + 3;
    while (*digit >= '0' && *digit <= '9' && number <= MAX_ITERATIONS)
        number = 10 * number + (uint32_t)(*digit++ - '0');
    if (*nonce_size <= 2 + own || size <= 0 || (*digit != '\0' && *digit != ',')
        || number < 4096 || number > MAX_ITERATIONS)
        return -1;
    if (number != d->iterations || size != d->salt_size || memcmp(bytes, d->salt, (size_t)size)) {
        pbkdf2(d->setup.token, bytes, (size_t)size, number, d->salted);
        memcpy(d->salt, bytes, (size_t)size);
        d->salt_size = (uint8_t)size;
        d->iterations = number;
    }
    return 0;
}

static void take_challenge(struct ingest_device *d, char *line)
{
    size_t nonce_size;
    long size = unbase64(line, strlen(line), (uint8_t *)line, sizeof d->line);

    if (size >= 0)
        line[size] = '\0';
    if (size < 0 || read_challenge(d, line, &nonce_size))
        retry_later(d, "bad-challenge");
    else
        prove(d, line, nonce_size);
}

/* Find the value behind ` key=` in an OK; others between them are skipped. */
static const char *value_of(const char *pairs, const char *key)
{
    size_t size = strlen(key);

    while (strncmp(pairs, key, size) != 0 || pairs[size] != '=') {
        pairs = strchr(pairs, ' ');
        if (pairs == NULL)
            return NULL;
        pairs++;
    }
    return pairs + size + 1;
}

static int read_number(const char *text, uint64_t *number)
{
    const char *digit = text;

    for (*number = 0; *digit >= '0' && *digit <= '9'; digit++)
        *number = 10 * *number + (uint64_t)(*digit - '0');
    return digit == text || digit - text > 19 || (*digit != '\0' && *digit != ' ') ? -1 : 0;
}

/* Check the last message of SCRAM, `v=` and the signature: only who knows the token can make it. */
static int is_signed(const struct ingest_device *d, const char *data)
{
    char inner[2 + 44 + 1] = "v=", outer[64 + 1];
    size_t i, size;
    char differences = 0;

    base64(d->expected, sizeof d->expected, inner + 2);
    size = base64((const uint8_t *)inner, 46, outer);
    if (data == NULL || strcspn(data, " ") != size)
        return 0;
    for (i = 0; i < size; i++)
        differences |= (char)(data[i] ^ outer[i]);
    return differences == 0;
}

/* Drop what the listener has already. Its `next` says how much of what is in doubt that is. */
static int resume(struct ingest_device *d, uint64_t next)
{
    if (d->first != 0 && next >= d->first && next - d->first <= d->in_doubt) {
        uint64_t stored = next - d->first;
        d->first = next;
        return drop(d, stored);
    }
    /*
     * The numbers say nothing about the queue: it is the first time, or another program has used
     * this name, or the listener has another log. The queue is sent as it is, so that nothing can
     * be lost; what was in doubt may then be there twice.
     */
    d->out_of_step += d->first != 0;
    d->first = next;
    d->in_doubt = 0;
    return mark(d); /* before anything is sent under these numbers */
}

static void take_ok(struct ingest_device *d, char *line)
{
    const char *number = value_of(line, "next");
    uint64_t next;

    if (d->setup.mechanism == INGEST_SCRAM_SHA_256 && !is_signed(d, value_of(line, "data"))) {
        retry_later(d, "impostor"); /* it does not know the token: nothing is sent */
        return;
    }
    if (number == NULL || read_number(number, &next) || next == 0) {
        retry_later(d, "bad-reply");
        return;
    }
    if (resume(d, next)) {
        stop(d, "storage");
        return;
    }
    d->cursor = d->head;
    d->pause = d->setup.pause;
    enter(d, INGEST_RUNNING);
}

static void take_ack(struct ingest_device *d, char *line)
{
    uint64_t last, stored, whole = d->sent - (d->left > 0);

    if (read_number(line, &last)) {
        retry_later(d, "bad-reply");
        return;
    }
    if (last < d->first)
        return;
    stored = last - d->first + 1;
    if (stored > whole) {
        retry_later(d, "bad-reply");
        return;
    }
    d->first = last + 1;
    if (drop(d, stored))
        stop(d, "storage");
}

/* Which replies may come when, and what takes them. ERR may come at any time. */
static const struct {
    enum ingest_state state;
    const char *word;
    void (*take)(struct ingest_device *d, char *rest);
} REPLIES[] = {
    {INGEST_CHALLENGED, "+ ", take_challenge},
    {INGEST_PROVING, "OK ", take_ok},
    {INGEST_RUNNING, "ACK ", take_ack},
};

static void take_line(struct ingest_device *d, char *line)
{
    size_t i;

    if (strncmp(line, "ERR ", 4) == 0) {
        take_error(d, line + 4);
        return;
    }
    for (i = 0; i < sizeof REPLIES / sizeof *REPLIES; i++) {
        size_t size = strlen(REPLIES[i].word);
        if (REPLIES[i].state == d->state && strncmp(line, REPLIES[i].word, size) == 0) {
            REPLIES[i].take(d, line + size);
            return;
        }
    }
    retry_later(d, "bad-reply");
}

/*
 * Take what has arrived, but not so much that a listener which never ends keeps your main loop from
 * its work. Of a line that is too long, which may only be an ERR, the rest is left.
 */
static void hear(struct ingest_device *d)
{
    const struct ingest_transport *t = &d->setup.transport;
    uint8_t data[128];
    long i, size;
    int turn;

    for (turn = 0; turn < 64 && is_connected(d); turn++) {
        size = t->receive(t->context, data, sizeof data);
        if (size == 0)
            return;
        if (size < 0) {
            retry_later(d, "broken");
            return;
        }
        for (i = 0; i < size && is_connected(d); i++) {
            if (data[i] == '\n') {
                d->line[d->line_size] = '\0';
                d->line_size = 0;
                take_line(d, d->line);
            } else if (d->line_size < sizeof d->line - 1) {
                d->line[d->line_size++] = (char)data[i];
            }
        }
    }
}

/* Fill the output with frames, each with its LF. */
static int fill(struct ingest_device *d)
{
    d->out_begin = d->out_end = 0;
    while (d->out_end < sizeof d->out && (d->left > 0 || d->sent < d->count)) {
        uint32_t room = (uint32_t)(sizeof d->out - d->out_end), part;
        uint8_t size[2];
        if (d->left == 0) {
            if (ring_read(d, d->cursor, size, sizeof size))
                return -1;
            d->left = (size[0] | (uint32_t)size[1] << 8) + 1;
            d->cursor = advanced(d, d->cursor, RECORD);
            d->sent++;
            if (d->in_doubt < d->sent)
                d->in_doubt = d->sent;
        }
        part = d->left - 1 < room ? d->left - 1 : room;
        if (ring_read(d, d->cursor, d->out + d->out_end, part))
            return -1;
        d->cursor = advanced(d, d->cursor, part);
        d->out_end += part;
        d->left -= part;
        if (d->left == 1 && part < room) {
            d->out[d->out_end++] = '\n';
            d->left = 0;
        }
    }
    return 0;
}

/* Send as much as the transport takes. Returns 0; -1: the connection is broken. */
static int speak(struct ingest_device *d)
{
    const struct ingest_transport *t = &d->setup.transport;

    for (;;) {
        long size;
        if (d->out_begin == d->out_end && d->state == INGEST_RUNNING && fill(d)) {
            stop(d, "storage");
            return 0;
        }
        if (d->out_begin == d->out_end)
            return 0;
        size = t->send(t->context, d->out + d->out_begin, d->out_end - d->out_begin);
        if (size <= 0)
            return (int)size;
        d->out_begin += (size_t)size;
        if (d->state == INGEST_RUNNING)
            d->since = d->now;
    }
}

static uint32_t rest_of(const struct ingest_device *d)
{
    uint32_t gone = d->now - d->since, whole = UINT32_MAX;

    if (d->state == INGEST_PAUSING)
        whole = d->wait;
    else if (d->state == INGEST_RUNNING)
        whole = KEEP_ALIVE;
    else if (d->state != INGEST_STOPPED)
        whole = HANDSHAKE_PATIENCE;
    return gone < whole ? whole - gone : 0;
}

uint32_t ingest_poll(struct ingest_device *d, uint32_t now)
{
    d->now = now;
    if (d->state == INGEST_PAUSING && rest_of(d) == 0)
        dial(d);
    hear(d);
    if (d->state == INGEST_RUNNING && rest_of(d) == 0) {
        if (d->out_begin == d->out_end) { /* an empty line keeps the connection */
            d->out[0] = '\n';
            d->out_begin = 0;
            d->out_end = 1;
        }
        d->since = d->now; /* if there was something to send, it is the listener that is busy */
    }
    if (is_connected(d) && speak(d) < 0) {
        hear(d); /* the listener may have said why */
        if (is_connected(d))
            retry_later(d, "broken");
    }
    /* An acknowledgement that is late is no error, and waited for; a late OK is one. */
    if (is_connected(d) && d->state != INGEST_RUNNING && rest_of(d) == 0)
        retry_later(d, "no-answer");
    return rest_of(d);
}

int ingest_wants_to_send(const struct ingest_device *d)
{
    return is_connected(d) && d->out_begin != d->out_end;
}

int ingest_begin(struct ingest_device *d, const struct ingest_setup *setup)
{
    int found = -1;

    memset(d, 0, sizeof *d);
    d->setup = *setup;
    if (d->setup.pause == 0)
        d->setup.pause = 1000;
    d->pause = d->setup.pause;
    d->state = INGEST_STOPPED;
    if (strlen(setup->name) > LONGEST_NAME
        || (setup->mechanism == INGEST_PLAIN
            && strlen(setup->name) + strlen(setup->token) > LONGEST_LOGIN)) {
        stop(d, "login-too-long");
        return -1;
    }
    if (setup->storage.size > RING + RECORD)
        found = load_mark(d);
    if (found < 0 || load_records(d) || (found == 0 && mark(d))) {
        stop(d, "storage");
        return -1;
    }
    d->in_doubt = d->count; /* which of them were sent before the restart is not known */
    d->state = INGEST_PAUSING;
    return 0;
}

/* ---- 5. For POSIX: a transport, a storage and a small program ------------------------------ */

#ifdef INGEST_MAIN

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct tcp {
    const char *host, *port;
    int fd;
};

/* Wait for a connection that is being made, for at most ten seconds. */
static int is_made(int fd)
{
    struct pollfd made = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t size = sizeof error;

    return poll(&made, 1, 10000) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0
        && error == 0;
}

static int tcp_open(void *context)
{
    struct tcp *tcp = context;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *each;
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int on = 1;

    if (getaddrinfo(tcp->host, tcp->port, &hints, &found) != 0)
        return -1;
    for (each = found; each != NULL && tcp->fd < 0; each = each->ai_next) {
        tcp->fd = socket(each->ai_family, SOCK_STREAM, 0);
        if (tcp->fd < 0)
            continue;
        fcntl(tcp->fd, F_SETFL, O_NONBLOCK);
        /* A listener that has vanished, and will never say so, is found out by the system. */
        setsockopt(tcp->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        /* If this program dies, the system must not end the connection in good order: the half of
         * a line would then count as a frame. (A board that loses its power says nothing.) */
        setsockopt(tcp->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        if (connect(tcp->fd, each->ai_addr, each->ai_addrlen) != 0
            && (errno != EINPROGRESS || !is_made(tcp->fd))) {
            close(tcp->fd);
            tcp->fd = -1;
        }
    }
    freeaddrinfo(found);
    return tcp->fd < 0 ? -1 : 0;
}

static int would_wait(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static long tcp_send(void *context, const uint8_t *data, size_t size)
{
    ssize_t done = send(((struct tcp *)context)->fd, data, size, MSG_NOSIGNAL);

    return done < 0 && would_wait() ? 0 : (long)done;
}

static long tcp_receive(void *context, uint8_t *data, size_t size)
{
    ssize_t done = recv(((struct tcp *)context)->fd, data, size, 0);

    if (done == 0)
        return -1; /* the listener has closed its side */
    return done < 0 && would_wait() ? 0 : (long)done;
}

static void tcp_close(void *context)
{
    struct tcp *tcp = context;

    close(tcp->fd);
    tcp->fd = -1;
}

static int file_read(void *context, uint32_t at, void *data, size_t size)
{
    return pread(*(int *)context, data, size, (off_t)at) == (ssize_t)size ? 0 : -1;
}

static int file_write(void *context, uint32_t at, const void *data, size_t size)
{
    return pwrite(*(int *)context, data, size, (off_t)at) == (ssize_t)size ? 0 : -1;
}

static int file_sync(void *context)
{
    return fsync(*(int *)context);
}

/* Open the file of a queue, make it as large as it will ever be, and keep other programs out. */
static int open_queue(const char *path, uint32_t size)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);

    if (fd < 0 || lockf(fd, F_TLOCK, 0) != 0
        || (lseek(fd, 0, SEEK_END) == 0 && ftruncate(fd, (off_t)size) != 0)) {
        perror(path);
        exit(2);
    }
    return fd;
}

static void system_random(uint8_t *data, size_t size)
{
    int fd = open("/dev/urandom", O_RDONLY);

    if (fd < 0 || read(fd, data, size) != (ssize_t)size) {
        perror("/dev/urandom");
        exit(2);
    }
    close(fd);
}

static uint32_t milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

static struct {
    char data[1 << 16];
    size_t size;
    int is_over;
} input;

/* Push the lines that were read, as far as there is room. Returns whether it was full. */
static int push_lines(struct ingest_device *device)
{
    char *begin = input.data, *end = input.data + input.size, *lf;
    enum ingest_result result = INGEST_TAKEN;
    size_t size;

    while ((lf = memchr(begin, '\n', (size_t)(end - begin))) != NULL) {
        size = (size_t)(lf - begin);
        if (size > 0 && lf[-1] == '\r') /* a line may end in CRLF */
            size--;
        result = size > 0 ? ingest_push(device, begin, size) : INGEST_TAKEN;
        if (result == INGEST_FULL)
            break;
        if (result == INGEST_NO_DISK) {
            perror("the queue");
            exit(2);
        }
        if (result == INGEST_NO_FRAME)
            fprintf(stderr, "a line is no frame, and left out\n");
        begin = lf + 1;
    }
    input.size = (size_t)(end - begin);
    memmove(input.data, begin, input.size);
    if (input.size == sizeof input.data && result != INGEST_FULL) {
        fprintf(stderr, "a line is longer than %lu bytes\n", (unsigned long)sizeof input.data);
        exit(2);
    }
    return result == INGEST_FULL;
}

static void read_input(void)
{
    ssize_t size = read(STDIN_FILENO, input.data + input.size, sizeof input.data - input.size);

    if (size > 0) {
        input.size += (size_t)size;
    } else if (size == 0 || errno != EINTR) {
        input.is_over = 1;
        if (input.size > 0 && input.data[input.size - 1] != '\n')
            input.data[input.size++] = '\n';
    }
}

/* Say why there is no connection, once for each outage. */
static void report(const struct ingest_device *device)
{
    static int is_told;

    if (device->state == INGEST_PAUSING && !is_told)
        fprintf(stderr, "no connection, but trying: %s\n", device->error);
    if (device->state == INGEST_PAUSING || device->state == INGEST_RUNNING)
        is_told = device->state == INGEST_PAUSING;
}

/* Go on until the input is over and all of it acknowledged, or somebody has to look. */
static void run(struct ingest_device *device, const struct tcp *tcp)
{
    for (;;) {
        uint32_t wait = ingest_poll(device, milliseconds()), taken = device->taken;
        int is_full = push_lines(device);
        struct pollfd watched[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                                    {.fd = tcp->fd, .events = POLLIN}};
        report(device);
        if (device->taken != taken)
            continue; /* it can be sent at once */
        if (device->state == INGEST_STOPPED || (input.is_over && device->count == 0))
            return;
        if (is_full || input.is_over)
            watched[0].fd = -1; /* poll skips it */
        if (ingest_wants_to_send(device))
            watched[1].events |= POLLOUT;
        poll(watched, 2, wait > 60000 ? 60000 : (int)wait);
        if (watched[0].fd >= 0 && watched[0].revents != 0)
            read_input();
    }
}

int main(int argc, char **argv)
{
    static struct ingest_device device;
    struct ingest_setup setup = {.mechanism = INGEST_SCRAM_SHA_256, .random = system_random};
    struct tcp tcp = {.fd = -1};
    const char *pause = getenv("INGEST_PAUSE_MS"), *size = getenv("INGEST_QUEUE_BYTES");
    int queue;

    if (argc == 2 && strcmp(argv[1], "--ram") == 0) {
        printf("%lu bytes for a device, of which %d are buffers; and the queue's storage\n",
               (unsigned long)sizeof device, 2 * INGEST_BUFFER);
        return 0;
    }
    if (argc < 5 || argc > 6 || (argc == 6 && strcmp(argv[5], "--plain") != 0)
        || getenv("INGEST_TOKEN") == NULL) {
        fprintf(stderr, "INGEST_TOKEN=... %s HOST PORT NAME QUEUE-FILE [--plain] < lines\n", *argv);
        return 2;
    }
    tcp.host = argv[1];
    tcp.port = argv[2];
    setup.name = argv[3];
    setup.token = getenv("INGEST_TOKEN");
    if (argc == 6)
        setup.mechanism = INGEST_PLAIN;
    if (pause != NULL)
        setup.pause = (uint32_t)strtoul(pause, NULL, 10);
    setup.transport = (struct ingest_transport){tcp_open, tcp_send, tcp_receive, tcp_close, &tcp};
    setup.storage = (struct ingest_storage){file_read, file_write, file_sync, &queue, 65536};
    if (size != NULL)
        setup.storage.size = (uint32_t)strtoul(size, NULL, 10);
    queue = open_queue(argv[4], setup.storage.size);
    if (ingest_begin(&device, &setup) == 0) {
        printf("taken %lu\n", (unsigned long)device.taken); /* where its input should go on */
        fflush(stdout);
        run(&device, &tcp);
    }
    if (device.set_aside > 0)
        fprintf(stderr, "%lu frames were refused\n", (unsigned long)device.set_aside);
    if (device.out_of_step > 0)
        fprintf(stderr, "another program uses this name: frames may be there twice\n");
    if (device.state == INGEST_STOPPED)
        fprintf(stderr, "stopped: %s\n", device.error);
    return device.state == INGEST_STOPPED;
}

#endif /* INGEST_MAIN */

#endif /* INGEST_DECLARATIONS */
