/* Runs a harness on files, without libFuzzer: any compiler replays the corpus. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int count, char **names)
{
    static uint8_t buffer[MOST];

    for (int i = 1; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        uint8_t *data;
        size_t size;

        if (file == NULL) {
            perror(names[i]);
            return 2;
        }
        size = fread(buffer, 1, sizeof buffer, file);
        fclose(file);
        /* A copy of the exact size: the sanitizer then sees what reads beyond it. */
        data = malloc(size > 0 ? size : 1u);
        if (data == NULL) {
            return 2;
        }
        for (size_t at = 0; at < size; at++) {
            data[at] = buffer[at];
        }
        printf("%s\n", names[i]);
        fflush(stdout);
        (void)LLVMFuzzerTestOneInput(data, size);
        free(data);
    }
    return 0;
}
