/*
 * Computes with the functions of the C client. A line is the name of one and its arguments in
 * hexadecimal, `-` for none of the bytes; the answer is the result in hexadecimal, or `none`.
 */

#include "ingest_device.c"

#include <stdio.h>

static size_t read_hex(const char *text, uint8_t *data)
{
    size_t size = 0;
    unsigned int byte;

    while (sscanf(text, "%2x", &byte) == 1) {
        data[size++] = (uint8_t)byte;
        text += 2;
    }
    return size;
}

static void print_hex(const void *data, long size)
{
    const uint8_t *byte = data;

    if (size < 0)
        printf("none");
    while (size-- > 0)
        printf("%02x", *byte++);
    printf("\n");
    fflush(stdout);
}

int main(void)
{
    static char line[5000], what[20], first[2400], second[2400];
    static uint8_t a[1200], b[1200], result[600];
    static char text[1700];

    while (fgets(line, sizeof line, stdin) != NULL) {
        int words = sscanf(line, "%19s %2399s %2399s", what, first, second);
        size_t a_size = read_hex(first, a), b_size = words > 2 ? read_hex(second, b) : 0;
        if (strcmp(what, "sha256") == 0) {
            struct sha256 hash;
            sha256_begin(&hash);
            sha256_add(&hash, a, a_size / 2); /* in two pieces */
            sha256_add(&hash, a + a_size / 2, a_size - a_size / 2);
            sha256_end(&hash, result);
            print_hex(result, 32);
        } else if (strcmp(what, "hmac") == 0) {
            struct hmac mac;
            hmac_begin(&mac, a, a_size);
            hmac_add(&mac, b, b_size);
            hmac_end(&mac, result);
            print_hex(result, 32);
        } else if (strcmp(what, "pbkdf2") == 0) {
            a[a_size] = '\0';
            pbkdf2((const char *)a, b, b_size, 4096, result);
            print_hex(result, 32);
        } else if (strcmp(what, "base64") == 0) {
            print_hex(text, (long)base64(a, a_size, text));
        } else if (strcmp(what, "unbase64") == 0) {
            print_hex(result, unbase64((const char *)a, a_size, result, 450));
        }
    }
    return 0;
}
