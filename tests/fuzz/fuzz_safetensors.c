/* Any bytes as a tensor file: tensors that lie within it, one behind the other, or a sentence. */
#include "engine/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_tensor(const pd_st *st, const pd_st_tensor *t, const uint8_t *data, size_t size)
{
    pd_err err = PD_ERR_INIT;
    size_t elements = 1;
    for (int d = 0; d < t->ndim; d++) elements *= (size_t)t->shape[d];
    if (elements != t->elements || t->bytes != elements * pd_st_type_size(t->type)) abort();
    if (t->bytes && (t->data < data + 8 || t->data + t->bytes > data + size)) abort();
    if (pd_st_find(st, t->name) != t) abort();
    float *f = malloc(t->elements * sizeof *f + 1);
    int64_t *n = malloc(t->elements * sizeof *n + 1);
    if (!f || !n) abort();
    pd_st_read_f32(f, t);
    (void)pd_st_read_i64(n, st, t, &err);
    free(f);
    free(n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pd_err err = PD_ERR_INIT;
    pd_st *st = NULL;
    const pd_status status = pd_st_parse(&st, "file", data, size, &err);
    if (status != PD_OK) {
        if (status != PD_EFORMAT || strncmp(err.text, "file:", 5) != 0 || st) abort();
        return 0;
    }
    for (size_t i = 0; i < pd_st_count(st); i++) {
        if (i && strcmp(pd_st_at(st, i - 1)->name, pd_st_at(st, i)->name) >= 0) abort();
        read_tensor(st, pd_st_at(st, i), data, size);
    }
    for (size_t i = 0; i < pd_st_meta_count(st); i++) {
        const char *key, *value;
        pd_st_meta_at(st, i, &key, &value);
        if (pd_st_meta(st, key) != value) abort();
    }
    pd_st_close(st);
    return 0;
}
