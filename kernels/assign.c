#include "kernels/assign.h"
#include "kernels/assign_math.h"
#include "kernels/assign_node.h"
#include "kernels/simd.h"

#include <string.h>

#define BLOCK 512 /* boxes; a power of two */

pd_assign_cfg pd_assign_cfg_retina(void)
{
    return (pd_assign_cfg){.pos = 0.5f, .neg = 0.4f, .min_pos = 0, .low_quality = true, .border = -1};
}

pd_assign_cfg pd_assign_cfg_rpn(void)
{
    return (pd_assign_cfg){.pos = 0.7f, .neg = 0.3f, .min_pos = 0.3f, .low_quality = true, .border = 0};
}

pd_assign_cfg pd_assign_cfg_roi(float thresh)
{
    return (pd_assign_cfg){.pos = thresh, .neg = thresh, .min_pos = thresh, .low_quality = false, .border = -1};
}

/* Boxes by coordinate, so that loops over them vectorise. */
typedef struct block {
    float x1[BLOCK], y1[BLOCK], x2[BLOCK], y2[BLOCK];
    float use[BLOCK]; /* 1, or 0: its IoUs count as -1 */
    pd_box hull;      /* of all boxes in it */
    int n;
} block;

/* The same call in both passes: the second looks for the very bits that the first computed. */
PD_CLONES static void block_iou(float *restrict iou, const block *b, pd_box gt)
{
    for (int j = 0; j < BLOCK; j++) {
        const pd_box box = {b->x1[j], b->y1[j], b->x2[j], b->y2[j]};
        const float v = pd_box_iou(gt, box);
        iou[j] = b->use[j] > 0 ? v : -1.f;
    }
}

PD_CLONES static void take_better(float *restrict best, int *restrict arg, const float *restrict iou, int g)
{
    for (int j = 0; j < BLOCK; j++) {
        const int better = iou[j] > best[j];
        best[j] = better ? iou[j] : best[j];
        arg[j] = better ? g : arg[j];
    }
}

/* Overwrites v. */
PD_CLONES static float largest(float *v)
{
    for (int n = BLOCK / 2; n >= 1; n /= 2)
        for (int j = 0; j < n; j++) v[j] = v[j + n] > v[j] ? v[j + n] : v[j];
    return v[0];
}

typedef struct job {
    int *match;
    const pd_box *boxes;
    int n;
    const unsigned char *usable, *ignore;
    const pd_box *gt;
    int g;
    const pd_assign_cfg *cfg;
    float *best_in_block; /* (blocks, g) largest IoU of each ground truth in each block */
    float *best;          /* (g) */
} job;

static bool counts(const job *j, int i)
{
    return (!j->usable || j->usable[i]) && (!j->ignore || !j->ignore[i]);
}

static void load(block *b, const job *j, int begin)
{
    b->n = j->n - begin < BLOCK ? j->n - begin : BLOCK;
    b->hull = j->boxes[begin];
    for (int k = 0; k < b->n; k++) {
        const pd_box box = j->boxes[begin + k];
        b->x1[k] = box.x1;
        b->y1[k] = box.y1;
        b->x2[k] = box.x2;
        b->y2[k] = box.y2;
        b->use[k] = counts(j, begin + k) ? 1.f : 0.f;
        if (box.x1 < b->hull.x1) b->hull.x1 = box.x1;
        if (box.y1 < b->hull.y1) b->hull.y1 = box.y1;
        if (box.x2 > b->hull.x2) b->hull.x2 = box.x2;
        if (box.y2 > b->hull.y2) b->hull.y2 = box.y2;
    }
    for (int k = b->n; k < BLOCK; k++) b->x1[k] = b->y1[k] = b->x2[k] = b->y2[k] = b->use[k] = 0;
}

/* No box of the block shares area with it: all IoUs are 0, which is what best starts from. */
static bool misses(const block *b, pd_box gt)
{
    return gt.x1 >= b->hull.x2 || gt.x2 <= b->hull.x1 || gt.y1 >= b->hull.y2 || gt.y2 <= b->hull.y1;
}

static void match_blocks(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    (void)thread;
    block b;
    float best[BLOCK], iou[BLOCK];
    int from[BLOCK];
    for (size_t i = begin; i < end; i++) {
        const int first = (int)i * BLOCK;
        load(&b, j, first);
        for (int k = 0; k < BLOCK; k++) best[k] = b.use[k] > 0 ? 0.f : -1.f;
        memset(from, 0, sizeof from);
        for (int g = 0; g < j->g; g++) {
            float *top = &j->best_in_block[i * (size_t)j->g + (size_t)g];
            *top = 0;
            if (misses(&b, j->gt[g])) continue;
            block_iou(iou, &b, j->gt[g]);
            take_better(best, from, iou, g);
            *top = largest(iou);
        }
        for (int k = 0; k < b.n; k++) j->match[first + k] = pd_assign_match(best[k], from[k], j->cfg);
    }
}

static void low_quality_blocks(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    (void)thread;
    block b;
    float iou[BLOCK];
    for (size_t i = begin; i < end; i++) {
        const int first = (int)i * BLOCK;
        bool loaded = false;
        for (int g = 0; g < j->g; g++) {
            const float best = j->best[g];
            if (!pd_assign_claims(best, j->cfg) || j->best_in_block[i * (size_t)j->g + (size_t)g] != best) continue;
            if (!loaded) load(&b, j, first);
            loaded = true;
            block_iou(iou, &b, j->gt[g]);
            for (int k = 0; k < b.n; k++)
                if (iou[k] == best) j->match[first + k] = g;
        }
    }
}

static size_t block_count(int n)
{
    return ((size_t)n + BLOCK - 1) / BLOCK;
}

size_t pd_assign_work(int n, int g)
{
    return (block_count(n) + 1) * (size_t)g * sizeof(float);
}

void pd_assign_boxes(int *match, const pd_box *boxes, int n, const unsigned char *usable, const unsigned char *ignore,
                     const pd_box *gt, int g, const pd_assign_cfg *cfg, void *work, pd_pool *pool)
{
    if (g == 0) {
        for (int i = 0; i < n; i++) match[i] = !usable || usable[i] ? PD_MATCH_BACKGROUND : PD_MATCH_IGNORED;
        return;
    }
    job j = {match, boxes, n, usable, ignore, gt, g, cfg, (float *)work + g, work};
    const size_t blocks = block_count(n);
    pd_parallel(pool, blocks, match_blocks, &j);
    if (!cfg->low_quality) return;
    memset(j.best, 0, (size_t)g * sizeof *j.best);
    for (size_t i = 0; i < blocks; i++)
        for (int k = 0; k < g; k++) {
            const float v = j.best_in_block[i * (size_t)g + (size_t)k];
            if (v > j.best[k]) j.best[k] = v;
        }
    pd_parallel(pool, blocks, low_quality_blocks, &j);
}

void pd_assign_ignore(unsigned char *ignore, const pd_box *boxes, int n, const pd_box *regions, int n_regions,
                      float thresh)
{
    for (int i = 0; i < n; i++)
        for (int r = 0; r < n_regions; r++) {
            const float area = pd_box_area(boxes[i]);
            if (pd_box_intersection(boxes[i], regions[r]) / (area > 1e-6f ? area : 1e-6f) > thresh) ignore[i] = 1;
        }
}

/* ---- on a tape ---- */

static size_t align_up(size_t n)
{
    return (n + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const assign_args *a = node->args;
    (void)device;
    (void)err;
    node->scratch_fwd = align_up(pd_assign_work(a->boxes, a->g)) + (size_t)a->boxes;
    return PD_OK;
}

typedef struct flags_job {
    unsigned char *out;
    const pd_anchor_grid *grid;
    const int *size;
    int border;
} flags_job;

static void flag_range(void *arg, size_t begin, size_t end, int thread)
{
    const flags_job *j = arg;
    (void)thread;
    pd_anchor_flags(j->out + begin, j->grid, j->size, j->border, (int)begin, (int)end);
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const assign_args *a = node->args;
    const int *n_gt = node->in[N_GT]->data, *n_boxes = node->in[N_BOXES] ? node->in[N_BOXES]->data : NULL;
    unsigned char *usable = (unsigned char *)node->scratch + align_up(pd_assign_work(a->boxes, a->g));
    for (int i = 0; i < a->n; i++) {
        int *match = (int *)node->out[0]->data + (size_t)i * (size_t)a->boxes;
        const pd_box *boxes = (const pd_box *)node->in[BOXES]->data + (a->shared ? 0 : (size_t)i * (size_t)a->boxes);
        const pd_box *gt = (const pd_box *)node->in[GT]->data + (size_t)i * (size_t)a->g;
        const int count = n_boxes ? n_boxes[i] : a->boxes;
        if (n_gt[i] < 0 || n_gt[i] > a->g)
            return PD_FAIL(err, PD_EINVAL, "image %d of the batch has %d ground truths, the room is %d", i, n_gt[i],
                           a->g);
        if (count < 0 || count > a->boxes)
            return PD_FAIL(err, PD_EINVAL, "image %d of the batch has %d boxes, the room is %d", i, count, a->boxes);
        if (a->has_grid) {
            flags_job f = {usable, &a->grid, (const int *)node->in[SIZES]->data + 4 * (size_t)i, a->cfg.border};
            pd_parallel(run->device->pool, (size_t)count, flag_range, &f);
        }
        pd_assign_boxes(match, boxes, count, a->has_grid ? usable : NULL, NULL, gt, n_gt[i], &a->cfg, node->scratch,
                        run->device->pool);
        for (int k = count; k < a->boxes; k++) match[k] = PD_MATCH_IGNORED;
    }
    return PD_OK;
}

static const pd_kernel cpu = {plan, fwd, NULL, NULL};
static const pd_op assign = {.name = "assign", .kernel = {[PD_CPU] = &cpu}};

/* The first thing wrong with the inputs, or NULL. */
static const char *fault(const assign_args *a, pd_value *const in[INPUTS])
{
    const pd_assign_cfg *c = &a->cfg;
    if (!(c->pos > 0 && c->neg <= c->pos && c->neg >= 0 && c->min_pos >= 0))
        return "thresholds: expected 0 <= neg <= pos, 0 < pos, 0 <= min_pos";
    if (in[GT]->shape.rank != 3 || in[GT]->shape.dim[2] != 4) return "ground truth: expected (n, g, 4)";
    if (in[N_GT]->dtype != PD_I32 || in[N_GT]->shape.rank != 1 || in[N_GT]->shape.dim[0] != a->n)
        return "counts of ground truth: expected int32 (n)";
    const pd_shape b = in[BOXES]->shape;
    if (!(b.rank == 2 && b.dim[1] == 4) && !(b.rank == 3 && b.dim[0] == a->n && b.dim[2] == 4))
        return "boxes: expected (a, 4) or (n, a, 4)";
    if (in[N_BOXES] && (in[N_BOXES]->dtype != PD_I32 || in[N_BOXES]->shape.dim[0] != a->n))
        return "counts of boxes: expected int32 (n)";
    if (a->has_grid && pd_anchor_count(&a->grid) != a->boxes) return "boxes: not as many as the grid has anchors";
    if (a->has_grid && !in[SIZES]) return "anchors need the images' sizes";
    if (in[SIZES] && (in[SIZES]->dtype != PD_I32 || in[SIZES]->shape.rank != 2 || in[SIZES]->shape.dim[0] != a->n ||
                      in[SIZES]->shape.dim[1] != 4))
        return "sizes: expected int32 (n, 4): h, w, pad_h, pad_w";
    return NULL;
}

pd_value *pd_assign(pd_tape *tape, pd_value *boxes, const pd_anchor_grid *grid, pd_value *n_boxes, pd_value *gt,
                    pd_value *n_gt, pd_value *sizes, const pd_assign_cfg *cfg)
{
    if (pd_tape_status(tape, NULL) != PD_OK) return pd_tape_dead(tape);
    assign_args a = {.cfg = *cfg, .n = gt->shape.dim[0], .g = gt->shape.dim[1], .has_grid = grid != NULL};
    a.shared = boxes->shape.rank == 2;
    a.boxes = boxes->shape.dim[a.shared ? 0 : 1];
    if (grid) a.grid = *grid;
    pd_value *in[INPUTS] = {boxes, n_boxes, gt, n_gt, sizes};
    const char *wrong = fault(&a, in);
    if (wrong) {
        pd_tape_fail(tape, PD_EINVAL, "assign: %s", wrong);
        return pd_tape_dead(tape);
    }
    const pd_shape shape = PD_SHAPE(a.n, a.boxes);
    const pd_dtype type = PD_I32;
    pd_node *node = pd_tape_add(tape, &assign, NULL, INPUTS, in, 1, &shape, &type, &a, sizeof a);
    return node ? node->out[0] : pd_tape_dead(tape);
}
