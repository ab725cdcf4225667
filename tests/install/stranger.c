/* Writes a tensor file with the installed library, reads it back and prints one value. */
#include "detectors/detector.h"
#include "engine/safetensors.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    const float values[2] = {0.5f, 42.0f};
    const int64_t shape[1] = {2};
    float back[2] = {0, 0};
    pd_err err = PD_ERR_INIT;
    pd_st_writer *w = NULL;
    pd_st *st = NULL;
    const char *path = argc > 1 ? argv[1] : "stranger.safetensors";
    if (pd_st_create(&w, path, PD_ST_SORTED, &err) != PD_OK ||
        pd_st_add(w, "x", PD_ST_F32, 1, shape, values, &err) != PD_OK || pd_st_commit(w, &err) != PD_OK ||
        pd_st_open(&st, path, &err) != PD_OK) {
        fprintf(stderr, "stranger: %s\n", err.text);
        return 1;
    }
    pd_st_read_f32(back, pd_st_find(st, "x"));
    printf("%g\n", (double)back[1]);
    pd_st_close(st);
    return 0;
}
