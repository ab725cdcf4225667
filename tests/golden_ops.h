/* golden_ops.h: reads tests/golden/ops.safetensors: small cases of every operation of the detectors, computed by a
 * PyTorch program in float64 (decisions in float32) and stored as float32. CASE.y is an output, CASE.dy the gradient
 * that comes in, CASE.dNAME the gradient of CASE.NAME. */
#ifndef PD_TEST_GOLDEN_OPS_H
#define PD_TEST_GOLDEN_OPS_H

#include "engine/box.h"
#include "engine/safetensors.h"
#include "tests/pd_test.h"

typedef struct golden {
    pd_st *file;
    pd_arena *arena;
} golden;

static inline golden golden_open(void)
{
    golden g = {NULL, pd_arena_new()};
    pd_err err = PD_ERR_INIT;
    PD_CHECK_OK(pd_st_open(&g.file, PD_GOLDEN "/ops.safetensors", &err));
    if (!g.file) exit(1);
    return g;
}

static inline void golden_close(golden *g)
{
    pd_st_close(g->file);
    pd_arena_free(g->arena);
}

/* A tensor by a formatted name; it must be there. */
static inline const pd_st_tensor *golden_find(const golden *g, const char *name)
{
    const pd_st_tensor *t = pd_st_find(g->file, name);
    if (!t) {
        fprintf(stderr, "ops.safetensors has no %s\n", name);
        exit(1);
    }
    return t;
}

/* Values as floats; *rows (may be NULL): the first dimension. */
static inline float *golden_f32(golden *g, const char *name, int *rows)
{
    const pd_st_tensor *t = golden_find(g, name);
    float *v = NULL;
    if (PD_ALLOC(&v, g->arena, t->elements + 1, NULL) != PD_OK) exit(1);
    pd_st_read_f32(v, t);
    if (rows) *rows = (int)t->shape[0];
    return v;
}

static inline pd_box *golden_boxes(golden *g, const char *name, int *rows)
{
    return (pd_box *)(void *)golden_f32(g, name, rows);
}

static inline int *golden_int(golden *g, const char *name, int *rows)
{
    const pd_st_tensor *t = golden_find(g, name);
    int64_t *wide = NULL;
    int *v = NULL;
    pd_err err = PD_ERR_INIT;
    if (PD_ALLOC(&wide, g->arena, t->elements + 1, NULL) != PD_OK ||
        PD_ALLOC(&v, g->arena, t->elements + 1, NULL) != PD_OK)
        exit(1);
    PD_CHECK_OK(pd_st_read_i64(wide, g->file, t, &err));
    for (size_t i = 0; i < t->elements; i++) v[i] = (int)wide[i];
    if (rows) *rows = (int)t->shape[0];
    return v;
}

/* An image tensor [n, c, h, w] as (n, h, w, c). */
static inline float *golden_nhwc(golden *g, const char *name, int dim[4])
{
    const pd_st_tensor *t = golden_find(g, name);
    const float *from = golden_f32(g, name, NULL);
    const int n = (int)t->shape[0], c = (int)t->shape[1], h = (int)t->shape[2], w = (int)t->shape[3];
    float *to = NULL;
    if (PD_ALLOC(&to, g->arena, t->elements + 1, NULL) != PD_OK) exit(1);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < c; k++)
            for (int y = 0; y < h; y++)
                for (int x = 0; x < w; x++) to[((i * h + y) * w + x) * c + k] = from[((i * c + k) * h + y) * w + x];
    if (dim) memcpy(dim, (int[]){n, h, w, c}, 4 * sizeof *dim);
    return to;
}

/* Bitwise equality of whole arrays, with the first difference named. */
#define PD_CHECK_SAME_FLOATS(got, want, n)                                                                             \
    do {                                                                                                               \
        const float *got_ = (const float *)(const void *)(got), *want_ = (const float *)(const void *)(want);          \
        size_t at_ = 0;                                                                                                \
        while (at_ < (size_t)(n) && !memcmp(got_ + at_, want_ + at_, sizeof *got_)) at_++;                             \
        PD_CHECK_MSG(at_ == (size_t)(n), "%s[%zu] is %.9g, expected %.9g", #got, at_, (double)got_[at_],               \
                     (double)want_[at_]);                                                                              \
    } while (0)

#define PD_CHECK_SAME_INTS(got, want, n)                                                                               \
    do {                                                                                                               \
        const int *got_ = (got), *want_ = (want);                                                                      \
        size_t at_ = 0;                                                                                                \
        while (at_ < (size_t)(n) && got_[at_] == want_[at_]) at_++;                                                    \
        PD_CHECK_MSG(at_ == (size_t)(n), "%s[%zu] is %d, expected %d", #got, at_, got_[at_], want_[at_]);              \
    } while (0)

#endif
