/* golden_output.h: a file that pd_classify or pd_detect wrote against one of the PyTorch reference: tensors by the
 * largest difference, detections and proposals as sets, the stages' rows by their proposals. Both files have PyTorch's
 * order. */
#ifndef PD_GOLDEN_OUTPUT_H
#define PD_GOLDEN_OUTPUT_H

#include "tests/golden_detector.h"

static inline float *output_values(const pd_st *file, const char *name, pd_arena *arena)
{
    const pd_st_tensor *t = pd_st_find(file, name);
    float *values;
    PD_CHECK_MSG(t != NULL, "%s holds no %s", pd_st_path(file), name);
    if (!t || PD_ALLOC(&values, arena, t->elements + 1, &err) != PD_OK) return NULL;
    pd_st_read_f32(values, t);
    return values;
}

static inline void output_tensor(const pd_st *golden, const pd_st *ours, const char *name)
{
    const double off = pd_oracle_between(golden, ours, name);
    if (off > worst_tensor) snprintf(worst_name, sizeof worst_name, "%s", name);
    worst_tensor = fmax(worst_tensor, off);
    PD_CHECK_MSG(off <= 1e-4, "%s off by %g", name, off);
}

static inline pd_box output_box(const float *v)
{
    return (pd_box){v[0], v[1], v[2], v[3]};
}

/* For every row of the reference the row that it has in our file, or -1: same box, same label, score within 1e-3. Rows
 * are (n, room, stride) with the box first; labels may be NULL. */
typedef struct output_rows {
    const float *box, *score, *label, *count;
    size_t stride, score_stride;
} output_rows;

static inline void output_match(const output_rows *want, const output_rows *got, int n, size_t room, int *row,
                                pd_arena *arena, const char *what)
{
    bool *taken;
    int lost = 0;
    PD_CHECK_OK(PD_ALLOC(&taken, arena, (size_t)n * room, &err));
    for (int i = 0; i < n; i++) {
        const size_t count = (size_t)want->count[i], base = (size_t)i * room;
        PD_CHECK_MSG(got->count[i] == want->count[i], "image %d: %g %s, expected %g", i, (double)got->count[i], what,
                     (double)want->count[i]);
        if (got->count[i] != want->count[i]) return;
        for (size_t r = 0; r < room; r++) row[base + r] = -1;
        for (size_t r = 0; r < count; r++) {
            for (size_t k = 0; k < count && row[base + r] < 0; k++) {
                const size_t w = base + r, g = base + (r + k) % count; /* its own row first */
                if (taken[g] || (want->label && want->label[w] != got->label[g])) continue;
                if (fabsf(want->score[w * want->score_stride] - got->score[g * got->score_stride]) > 1e-3f) continue;
                if (!same_box(want->box + w * want->stride, output_box(got->box + g * got->stride))) continue;
                taken[g] = true;
                row[w] = (int)(g - base);
            }
            lost += row[base + r] < 0;
        }
    }
    PD_CHECK_MSG(lost == 0, "%d %s without partner", lost, what);
}

static inline void output_detections(const pd_st *golden, const pd_st *ours, int n, pd_arena *arena)
{
    const size_t room = (size_t)pd_st_find(golden, "det.boxes")->shape[1];
    output_rows side[2];
    int *row;
    PD_CHECK_OK(PD_ALLOC(&row, arena, (size_t)n * room, &err));
    for (int i = 0; i < 2; i++) {
        const pd_st *file = i ? ours : golden;
        side[i] = (output_rows){output_values(file, "det.boxes", arena),
                                output_values(file, "det.scores", arena),
                                output_values(file, "det.labels", arena),
                                output_values(file, "num_dets", arena),
                                4,
                                1};
        if (!side[i].box || !side[i].score || !side[i].label || !side[i].count) return;
    }
    output_match(&side[0], &side[1], n, room, row, arena, "detections");
}

/* Whether rounding decides which features a box gets: RoIAlign takes ceil(side / 7) samples a bin, sides in pixels of
 * the box's level (level 2 is P2, of stride 4), so just above a whole number of samples there is one more. */
static inline bool output_at_jump(const float *box, float level)
{
    for (int a = 0; a < 2; a++) {
        const double samples = ldexp((double)box[a + 2] - (double)box[a], -(int)level) / 7;
        if (fabs(samples - round(samples)) < 1e-5 * samples) return true;
    }
    return false;
}

/* Cascade R-CNN's: proposals as sets, then every stage's rows in the reference's order, as tensors. A box that rounding
 * decides about is left out from there on: at most one in a hundred. */
static inline void output_stages(const pd_st *golden, const pd_st *ours, int n, pd_arena *arena)
{
    static const char *const parts[] = {"rois", "level", "cls_score", "bbox_pred"};
    const size_t room = (size_t)pd_st_find(golden, "proposals")->shape[1];
    output_rows side[2];
    char name[32];
    int *row;
    PD_CHECK_OK(PD_ALLOC(&row, arena, (size_t)n * room, &err));
    for (int i = 0; i < 2; i++) {
        float *v = output_values(i ? ours : golden, "proposals", arena);
        side[i] = (output_rows){v, v + 4, NULL, output_values(i ? ours : golden, "num_proposals", arena), 5, 5};
        if (!v || !side[i].count) return;
    }
    output_match(&side[0], &side[1], n, room, row, arena, "proposals");
    const float *box = NULL;
    int jumps = 0;
    for (int k = 0; k < 12; k++) {
        snprintf(name, sizeof name, "stage%d.%s", k / 4, parts[k % 4]);
        const float *want = output_values(golden, name, arena), *got = output_values(ours, name, arena);
        const pd_st_tensor *t = pd_st_find(golden, name);
        double top = 1e-30, worst = 0;
        const size_t width = t ? t->elements / ((size_t)n * room) : 0;
        for (size_t r = 0; want && got && r < (size_t)n * room; r++)
            for (size_t j = 0; row[r] >= 0 && j < width; j++) {
                const size_t at = (r / room * room + (size_t)row[r]) * width + j;
                top = fmax(top, fabs((double)want[r * width + j]));
                worst = fmax(worst, fabs((double)want[r * width + j] - (double)got[at]));
            }
        if (worst / top > worst_tensor) snprintf(worst_name, sizeof worst_name, "%s", name);
        worst_tensor = fmax(worst_tensor, worst / top);
        PD_CHECK_MSG(worst <= (k % 4 == 1 ? 0 : 1e-4 * top), "%s off by %g of %g", name, worst, top);
        if (k % 4 == 0) box = want;
        for (size_t r = 0; k % 4 == 1 && box && want && r < (size_t)n * room; r++) {
            if (row[r] < 0 || !output_at_jump(box + 4 * r, want[r])) continue;
            row[r] = -1;
            jumps++;
        }
    }
    PD_CHECK_MSG(jumps <= n * (int)room / 100, "%d of %d boxes have a whole number of samples", jumps, n * (int)room);
}

/* Every tensor of the reference's file is in ours and the same. */
static inline void check_output(const pd_st *golden, const char *path)
{
    pd_st *ours = NULL;
    pd_arena *arena = pd_arena_new();
    const int n = (int)pd_st_find(golden, "x")->shape[0];
    PD_CHECK_OK(pd_st_open(&ours, path, &err));
    for (size_t i = 0; ours && i < pd_st_count(golden); i++) {
        const char *name = pd_st_at(golden, i)->name;
        const bool rows = !strncmp(name, "det.", 4) || !strncmp(name, "num_", 4) || !strncmp(name, "stage", 5);
        if (!rows && strcmp(name, "x") != 0 && strcmp(name, "img_shape") != 0 && strcmp(name, "proposals") != 0)
            output_tensor(golden, ours, name);
    }
    if (ours && pd_st_find(golden, "det.boxes")) output_detections(golden, ours, n, arena);
    if (ours && pd_st_find(golden, "proposals")) output_stages(golden, ours, n, arena);
    pd_st_close(ours);
    pd_arena_free(arena);
}

#endif
