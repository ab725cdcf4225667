/* Any bytes as a file of torch.save, and as a pickle: tensors that lie within the file, or a sentence. */
#include "engine/pickle.h"
#include "engine/torch_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) abort();                                                                                     \
    } while (0)

typedef struct sum {
    size_t bytes;
    unsigned value;
} sum;

static void add(void *arg, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    sum *s = arg;
    s->bytes += bytes;
    for (size_t i = 0; i < bytes; i++) s->value += p[i];
}

/* A tree is finite: a walk of all its paths, cut after a while, gets no deeper than promised. */
static void walk(const pd_pickle *v, int depth, int *left)
{
    char text[96];
    MUST(depth <= PD_PICKLE_DEPTH);
    if (--*left < 0) return;
    pd_pickle_describe(text, sizeof text, v);
    MUST(text[0] && strlen(text) < sizeof text);
    switch (v->kind) {
    case PD_PICKLE_LIST:
    case PD_PICKLE_TUPLE:
    case PD_PICKLE_CALL:
    case PD_PICKLE_PERSISTENT:
    case PD_PICKLE_DICT:
        MUST(v->kind != PD_PICKLE_DICT || v->as.list.count % 2 == 0);
        for (size_t i = 0; i < v->as.list.count; i++) walk(v->as.list.items[i], depth + 1, left);
        break;
    default: break;
    }
}

static void try_file(const uint8_t *data, size_t size, bool skip_objects)
{
    const pd_torch_options options = {.skip_objects = skip_objects};
    pd_err err = PD_ERR_INIT;
    pd_torch *f = NULL;
    const pd_status status = pd_torch_parse(&f, "file", data, size, &options, &err);
    if (status != PD_OK) {
        MUST((status == PD_EFORMAT || status == PD_ENOMEM) && strncmp(err.text, "file:", 5) == 0 && !f);
        return;
    }
    MUST(pd_torch_count(f) > 0);
    for (size_t i = 0; i < pd_torch_count(f); i++) {
        const pd_view *v = &pd_torch_at(f, i)->view;
        sum s = {0};
        if (v->bytes > (1 << 20)) continue;
        pd_view_walk(v, add, &s);
        MUST(s.bytes == v->bytes);
    }
    pd_torch_close(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const globals[] = {"torch.Size", "torch._utils._rebuild_tensor_v2", "torch.FloatStorage", NULL};
    const pd_pickle_options options = {.globals = globals, .skip_objects = size % 2 == 0, .max_values = 10000};
    pd_err err = PD_ERR_INIT;
    pd_pickle_file file;
    int left = 1000;
    pd_arena *arena = pd_arena_new();
    MUST(arena);
    const pd_status status = pd_pickle_parse(&file, "pickle", data, size, &options, arena, &err);
    if (status == PD_OK) {
        MUST(file.size <= size);
        walk(file.root, 0, &left);
    } else {
        MUST(status == PD_EFORMAT && strncmp(err.text, "pickle:", 7) == 0);
    }
    pd_arena_free(arena);
    try_file(data, size, size % 2 == 0);
    return 0;
}
