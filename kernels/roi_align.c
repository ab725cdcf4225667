#include "kernels/roi_align.h"
#include "kernels/roi_align_math.h"
#include "kernels/roi_align_node.h"
#include "kernels/simd.h"

#include <string.h>

#define MAX_BINS 64

/* One axis of one box. */
typedef struct axis {
    pd_roi_span bin[MAX_BINS];
    int begin, end; /* all pixels read */
    float *weight;  /* (bins, longest) */
} axis;

static void fill_axis(axis *a, const roi_args *args, float lo, float hi, int stride, int pixels)
{
    const pd_roi_axis line = pd_roi_axis_of(lo, hi, stride, args->size, args->ratio, pixels);
    a->begin = pixels;
    a->end = 0;
    for (int p = 0; p < args->size; p++) {
        const pd_roi_span s = pd_roi_bin(a->weight + (size_t)p * (size_t)args->longest, &line, p);
        a->bin[p] = s;
        if (s.count && s.first < a->begin) a->begin = s.first;
        if (s.count && s.first + s.count > a->end) a->end = s.first + s.count;
    }
}

PD_INLINE float weight_at(const axis *a, const roi_args *args, int bin, int pixel)
{
    const int i = pixel - a->bin[bin].first;
    return i >= 0 && i < a->bin[bin].count ? a->weight[(size_t)bin * (size_t)args->longest + (size_t)i] : 0.f;
}

PD_INLINE void add_scaled(float *restrict to, const float *restrict from, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] += scale * from[i];
}

/* Scratch of one thread: the weights of both axes and one row of bins. */
static size_t scratch_floats(const roi_args *a)
{
    const size_t n = (size_t)a->size * (2 * (size_t)a->longest + (size_t)a->c);
    return (n + PD_ALIGN / sizeof(float) - 1) / (PD_ALIGN / sizeof(float)) * (PD_ALIGN / sizeof(float));
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)err;
    node->scratch_fwd = node->scratch_bwd =
        scratch_floats(node->args) * sizeof(float) * (size_t)pd_pool_threads(device->pool);
    return PD_OK;
}

typedef struct job {
    pd_node *node;
    const pd_run *run;
    size_t width; /* backward: channels of a piece */
} job;

typedef struct cut {
    axis x, y;
    float *row; /* (size, c) */
    int level;
    size_t image;
} cut;

/* Where the box reads, and its level. */
static void begin_cut(cut *c, const pd_node *node, size_t number, int thread)
{
    const roi_args *a = node->args;
    const pd_box roi = ((const pd_box *)node->in[ROIS]->data)[number];
    c->image = number / (size_t)a->m;
    c->level = pd_roi_level(roi, a->levels);
    c->x.weight = (float *)node->scratch + (size_t)thread * scratch_floats(a);
    c->y.weight = c->x.weight + (size_t)a->size * (size_t)a->longest;
    c->row = c->y.weight + (size_t)a->size * (size_t)a->longest;
    fill_axis(&c->x, a, roi.x1, roi.x2, a->stride[c->level], a->w[c->level]);
    fill_axis(&c->y, a, roi.y1, roi.y2, a->stride[c->level], a->h[c->level]);
}

static bool used(const pd_node *node, size_t number)
{
    const roi_args *a = node->args;
    const int *n_rois = node->in[N_ROIS] ? node->in[N_ROIS]->data : NULL;
    return !n_rois || (int)(number % (size_t)a->m) < n_rois[number / (size_t)a->m];
}

/* One box's bins; out is zeroed. */
PD_CLONES static void gather(const pd_node *node, const cut *c, float *out)
{
    const roi_args *a = node->args;
    const size_t ch = (size_t)a->c, row = (size_t)a->size * ch, w = (size_t)a->w[c->level];
    const float *map = (const float *)node->in[LEVELS + c->level]->data + c->image * (size_t)a->h[c->level] * w * ch;
    for (int y = c->y.begin; y < c->y.end; y++) {
        const float *line = map + (size_t)y * w * ch;
        memset(c->row, 0, row * sizeof *c->row);
        for (int q = 0; q < a->size; q++)
            for (int i = 0; i < c->x.bin[q].count; i++) {
                const int x = c->x.bin[q].first + i;
                add_scaled(c->row + (size_t)q * ch, line + (size_t)x * ch, weight_at(&c->x, a, q, x), ch);
            }
        for (int p = 0; p < a->size; p++) {
            const float weight = weight_at(&c->y, a, p, y);
            if (weight != 0) add_scaled(out + (size_t)p * row, c->row, weight, row);
        }
    }
}

static void forward_rois(void *arg, size_t begin, size_t end, int thread)
{
    const pd_node *node = ((const job *)arg)->node;
    const roi_args *a = node->args;
    const size_t ch = (size_t)a->c, row = (size_t)a->size * ch;
    for (size_t r = begin; r < end; r++) {
        float *out = (float *)node->out[0]->data + r * (size_t)a->size * row;
        memset(out, 0, (size_t)a->size * row * sizeof *out);
        if (!used(node, r)) continue;
        cut c;
        begin_cut(&c, node, r, thread);
        gather(node, &c, out);
    }
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const roi_args *a = node->args;
    job j = {node, run, 0};
    const int *n_rois = node->in[N_ROIS] ? node->in[N_ROIS]->data : NULL;
    for (int i = 0; i < a->n && n_rois; i++)
        if (n_rois[i] < 0 || n_rois[i] > a->m)
            return PD_FAIL(err, PD_EINVAL, "image %d of the batch has %d boxes, the room is %d", i, n_rois[i], a->m);
    pd_parallel_each(run->device->pool, (size_t)a->n * (size_t)a->m, forward_rois, &j);
    return PD_OK;
}

/* Channels of one piece of the backward pass: pieces enough to keep the threads busy. A channel's sum is the same
 * whatever piece it is in. */
static size_t slice_width(const roi_args *a, int threads)
{
    const size_t pieces = (3 * (size_t)threads + (size_t)a->n - 1) / (size_t)a->n;
    const size_t width = ((size_t)a->c + pieces - 1) / pieces;
    return (width + 15) / 16 * 16;
}

/* One box's part of the gradient, channels [c0, c0 + n). */
PD_CLONES static void scatter(const pd_node *node, const cut *c, const float *dy, size_t c0, size_t n)
{
    const roi_args *a = node->args;
    const size_t ch = (size_t)a->c, w = (size_t)a->w[c->level];
    float *map = node->in[LEVELS + c->level]->grad + c->image * (size_t)a->h[c->level] * w * ch + c0;
    for (int y = c->y.begin; y < c->y.end; y++) {
        float *line = map + (size_t)y * w * ch;
        for (int q = 0; q < a->size; q++) {
            memset(c->row, 0, n * sizeof *c->row);
            for (int p = 0; p < a->size; p++) {
                const float weight = weight_at(&c->y, a, p, y);
                const size_t bin = (size_t)p * (size_t)a->size + (size_t)q;
                if (weight != 0) add_scaled(c->row, dy + bin * ch + c0, weight, n);
            }
            for (int i = 0; i < c->x.bin[q].count; i++) {
                const int x = c->x.bin[q].first + i;
                add_scaled(line + (size_t)x * ch, c->row, weight_at(&c->x, a, q, x), n);
            }
        }
    }
}

/* Pieces of (image, slice of channels): no two write the same place, and each adds its boxes in order. */
static void backward_pieces(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const pd_node *node = j->node;
    const roi_args *a = node->args;
    const size_t bins = (size_t)a->size * (size_t)a->size, slices = ((size_t)a->c + j->width - 1) / j->width;
    for (size_t piece = begin; piece < end; piece++) {
        const size_t image = piece / slices, c0 = piece % slices * j->width;
        const size_t n = (size_t)a->c - c0 < j->width ? (size_t)a->c - c0 : j->width;
        for (size_t r = image * (size_t)a->m; r < (image + 1) * (size_t)a->m; r++) {
            if (!used(node, r)) continue;
            cut c;
            begin_cut(&c, node, r, thread);
            if (!pd_wants_grad(node, LEVELS + c.level)) continue;
            scatter(node, &c, node->out[0]->grad + r * bins * (size_t)a->c, c0, n);
        }
    }
}

static void zero_range(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    memset((float *)arg + begin, 0, (end - begin) * sizeof(float));
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const roi_args *a = node->args;
    const size_t width = slice_width(a, pd_pool_threads(run->device->pool));
    job j = {node, run, width};
    (void)err;
    for (int l = 0; l < a->levels; l++)
        if (pd_wants_grad(node, LEVELS + l) && !pd_adds_grad(node, LEVELS + l, run))
            pd_parallel(run->device->pool, pd_shape_size(node->in[LEVELS + l]->shape), zero_range,
                        node->in[LEVELS + l]->grad);
    pd_parallel_each(run->device->pool, (size_t)a->n * (((size_t)a->c + width - 1) / width), backward_pieces, &j);
    return PD_OK;
}

static const pd_kernel cpu = {plan, fwd, bwd, NULL};
static const pd_op roi_align = {.name = "roi_align",
                                .bwd_reads_in = 1u << ROIS | 1u << N_ROIS,
                                .differentiable = true,
                                .kernel = {[PD_CPU] = &cpu}};

static const char *fault(const roi_args *a, pd_value *const *level, const int *stride, const pd_value *rois,
                         const pd_value *n_rois)
{
    if (a->levels < 1 || a->levels > PD_MAX_LEVELS) return "1 to 8 levels are possible";
    if (a->size < 1 || a->size > MAX_BINS || a->ratio < 0 || a->ratio > PD_ROI_MAX_SAMPLES)
        return "size: expected 1..64, ratio: expected 0 or more";
    if (rois->shape.rank != 3 || rois->shape.dim[2] != 4) return "boxes: expected (n, m, 4)";
    if (n_rois && (n_rois->dtype != PD_I32 || n_rois->shape.rank != 1 || n_rois->shape.dim[0] != a->n))
        return "counts: expected int32 (n)";
    for (int l = 0; l < a->levels; l++) {
        const pd_shape s = level[l]->shape;
        if (s.rank != 4 || s.dim[0] != a->n || s.dim[1] < 1 || s.dim[2] < 1 || s.dim[3] != level[0]->shape.dim[3])
            return "features: expected (n, h, w, c) with the same n and c on all levels";
        if (stride[l] < 1) return "strides: expected 1 or more";
    }
    return NULL;
}

pd_value *pd_roi_align(pd_tape *tape, pd_value *const *level, const int *stride, int levels, pd_value *rois,
                       pd_value *n_rois, int size, int ratio)
{
    if (pd_tape_status(tape, NULL) != PD_OK) return pd_tape_dead(tape);
    roi_args a = {.levels = levels, .size = size, .ratio = ratio, .n = rois->shape.dim[0], .m = rois->shape.dim[1]};
    const char *wrong = fault(&a, level, stride, rois, n_rois);
    if (wrong) {
        pd_tape_fail(tape, PD_EINVAL, "roi_align: %s", wrong);
        return pd_tape_dead(tape);
    }
    pd_value *in[LEVELS + PD_MAX_LEVELS] = {rois, n_rois};
    a.c = level[0]->shape.dim[3];
    for (int l = 0; l < levels; l++) {
        a.stride[l] = stride[l];
        a.h[l] = level[l]->shape.dim[1];
        a.w[l] = level[l]->shape.dim[2];
        if (a.h[l] > a.longest) a.longest = a.h[l];
        if (a.w[l] > a.longest) a.longest = a.w[l];
        in[LEVELS + l] = level[l];
    }
    return pd_tape_add1(tape, &roi_align, NULL, LEVELS + levels, in, PD_SHAPE(a.n * a.m, size, size, a.c), &a,
                        sizeof a);
}
