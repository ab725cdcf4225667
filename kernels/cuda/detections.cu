/* Detections: candidates of dense heads and of box heads, and the suppression of both. */
#include "kernels/cuda/launch.cuh"

#include "kernels/anchors_math.h"
#include "kernels/cuda/detections.h"
#include "kernels/detections_math.h"
#include "kernels/nms_math.h"
#include "kernels/soft_nms_math.h"
#include "kernels/topk_math.h"

#include <math.h>

using namespace pd;

namespace
{

const uint64_t NONE = UINT64_MAX;

/* What kernels share: the list, and the boxes that its pairs have. */
struct memory {
    uint64_t *list; /* (n, pairs) */
    pd_box *box;    /* (n, rows), or (n, pairs) with boxes of classes, or (n, slots); pixels of the original image */
    int *found;     /* (n, 2): entries; bits of the largest coordinate of a candidate, none below 0 */
    int *pick;      /* (n, rows), dense heads only */
    float *top;     /* (n, anchors of levels that are cut) */
    /* where pairs are chosen, else of no size: */
    uint64_t *chosen, *sorted; /* (n, slots) */
    int *label;                /* (n, slots); NULL where nothing is chosen */
    int *in_level;             /* (n, PD_MAX_LEVELS): pairs of a level above the threshold */
};

size_t pairs_of(const pd_detections_shape *s)
{
    return (size_t)s->rows * (size_t)s->k;
}

/* With work NULL: only how many bytes. */
size_t lay_out(const pd_detections_shape *s, size_t tops, void *work, memory *m)
{
    const size_t n = (size_t)s->n, rows = n * (size_t)s->rows, pairs = n * pairs_of(s), slots = n * (size_t)s->slots;
    const size_t boxes = s->slots ? slots : s->class_boxes ? pairs : rows;
    char *const base = static_cast<char *>(work);
    size_t at = 0;
    m->list = reinterpret_cast<uint64_t *>(base);
    m->box = reinterpret_cast<pd_box *>(base + (at += pd_align_up(pairs * sizeof(uint64_t))));
    m->found = reinterpret_cast<int *>(base + (at += pd_align_up(boxes * sizeof(pd_box))));
    m->pick = reinterpret_cast<int *>(base + (at += pd_align_up(2 * n * sizeof(int))));
    m->top = reinterpret_cast<float *>(base + (at += pd_align_up(rows * sizeof(int))));
    m->chosen = reinterpret_cast<uint64_t *>(base + (at += pd_align_up(n * tops * sizeof(float))));
    m->sorted = reinterpret_cast<uint64_t *>(base + (at += pd_align_up(slots * sizeof(uint64_t))));
    m->label = reinterpret_cast<int *>(base + (at += pd_align_up(slots * sizeof(uint64_t))));
    m->in_level = reinterpret_cast<int *>(base + (at += pd_align_up(slots * sizeof(int))));
    if (!s->slots) m->label = NULL;
    return at + pd_align_up(slots ? n * PD_MAX_LEVELS * sizeof(int) : 0);
}

__global__ void clear(int *found, size_t n, int *in_level, size_t levels)
{
    for (size_t i = first_item(); i < n; i += item_step()) found[i] = 0;
    for (size_t i = first_item(); i < levels; i += item_step()) in_level[i] = 0;
}

int begin_lists(const pd_detections_shape *s, const memory *m, cudaStream_t stream)
{
    const size_t levels = s->slots ? (size_t)s->n * PD_MAX_LEVELS : 0, most = levels ? levels : 2 * (size_t)s->n;
    return launch(clear, blocks_for(most), dim3(PD_THREADS), stream, m->found, 2 * (size_t)s->n, m->in_level, levels);
}

__device__ __forceinline__ pd_box original(const pd_detections_shape &s, size_t image, pd_box box)
{
    const float *scale = s.scales + 3 * image;
    return pd_detection_unscaled(box, s.sizes[4 * image + 1], scale[0], scale[1], scale[2] > 0);
}

__device__ __forceinline__ void add(const pd_detections_shape &s, const memory &m, size_t image, size_t pairs,
                                    size_t pair, float score, pd_box box)
{
    const float largest = pd_box_largest(box);
    m.list[image * pairs + (size_t)atomicAdd(&m.found[2 * image], 1)] = pd_score_order(score, (int)pair);
    if (largest > 0) atomicMax(&m.found[2 * image + 1], (int)pd_float_bits(largest));
}

/* ---- dense heads ---- */

/* The best score of each anchor of all images; k a multiple of V. */
template <class T, int V>
__global__ void best_scores(const T *__restrict__ logits, int k, size_t anchors, float *__restrict__ top)
{
    for (size_t i = first_item(); i < anchors; i += item_step()) {
        float v[V], most = -INFINITY;
        for (int c = 0; c < k; c += V) {
            load<V>(logits + i * (size_t)k + c, v);
            for (int j = 0; j < V; j++) most = v[j] > most ? v[j] : most;
        }
        top[i] = pd_detection_score(most);
    }
}

/* A level's rows of an image. */
struct level_job {
    int first, count;
    const int *pick;
};

/* The box of the anchor at a place of the level; deltas: the image's. */
template <class T>
__device__ __forceinline__ pd_box box_at(const pd_detections_shape &s, size_t image, const pd_anchor_level &v,
                                         int place, const T *deltas)
{
    const int cell = place / v.per_cell, y = cell / v.w, x = cell - y * v.w;
    const T *d = deltas + 4 * (size_t)place;
    const pd_delta t = {to_float(d[0]), to_float(d[1]), to_float(d[2]), to_float(d[3])};
    const pd_box anchor = pd_anchor_moved(v.base[place - cell * v.per_cell], x * v.stride, y * v.stride);
    return original(
        s, image,
        pd_box_clip(&s.cfg.coder, pd_box_decode(&s.cfg.coder, anchor, t), s.sizes[4 * image], s.sizes[4 * image + 1]));
}

/* grid (blocks over the level's rows, images) */
template <class T>
__global__ void decode(pd_detections_shape s, level_job j, pd_anchor_level v, const T *__restrict__ deltas, memory m)
{
    const size_t image = blockIdx.y;
    deltas += image * (size_t)v.count * 4;
    for (size_t i = first_item(); i < (size_t)j.count; i += item_step()) {
        const size_t row = image * (size_t)s.rows + (size_t)j.first + i;
        m.box[row] = box_at(s, image, v, j.pick[row], deltas);
    }
}

/* grid (blocks over the level's pairs, images) */
template <class T>
__global__ void dense_candidates(pd_detections_shape s, level_job j, int anchors, const T *__restrict__ logits,
                                 memory m)
{
    const size_t image = blockIdx.y, k = (size_t)s.k, rows = (size_t)s.rows;
    logits += image * (size_t)anchors * k;
    for (size_t i = first_item(); i < (size_t)j.count * k; i += item_step()) {
        const size_t row = (size_t)j.first + i / k, c = i % k;
        const float score = pd_detection_score(to_float(logits[(size_t)j.pick[image * rows + row] * k + c]));
        if (score > s.cfg.score_thresh) add(s, m, image, rows * k, row * k + c, score, m.box[image * rows + row]);
    }
}

/* grid (blocks over the level's pairs, images): those above the threshold, into the level's part of the list. */
template <class T>
__global__ void list_pairs(pd_detections_shape s, level_job j, int level, int anchors, const T *__restrict__ logits,
                           memory m)
{
    const size_t image = blockIdx.y, k = (size_t)s.k, rows = (size_t)s.rows;
    uint64_t *list = m.list + (image * rows + (size_t)j.first) * k;
    int *count = m.in_level + image * PD_MAX_LEVELS + level;
    logits += image * (size_t)anchors * k;
    for (size_t i = first_item(); i < (size_t)j.count * k; i += item_step()) {
        const size_t pair = (size_t)j.pick[image * rows + (size_t)j.first + i / k] * k + i % k;
        const float score = pd_detection_score(to_float(logits[pair]));
        if (score > s.cfg.score_thresh) list[(size_t)atomicAdd(count, 1)] = pd_score_order(score, (int)pair);
    }
}

/* grid (blocks over the level's slots, images): the chosen pairs become candidates. */
template <class T>
__global__ void take_pairs(pd_detections_shape s, int first, int room, int level, pd_anchor_level v,
                           const T *__restrict__ deltas, memory m)
{
    const size_t image = blockIdx.y, slots = (size_t)s.slots;
    const int found = m.in_level[image * PD_MAX_LEVELS + level], count = found < room ? found : room;
    deltas += image * (size_t)v.count * 4;
    for (size_t i = first_item(); i < (size_t)count; i += item_step()) {
        const size_t slot = (size_t)first + i;
        const uint64_t order = m.sorted[image * slots + slot];
        const int pair = (int)(uint32_t)order, place = pair / s.k;
        const pd_box box = box_at(s, image, v, place, deltas);
        m.box[image * slots + slot] = box;
        m.label[image * slots + slot] = pair - place * s.k;
        add(s, m, image, (size_t)s.rows * (size_t)s.k, slot, pd_order_score(order), box);
    }
}

/* ---- box heads ---- */

/* grid (blocks over rows, images) */
__global__ void roi_candidates(pd_detections_shape s, pd_stage_logits logits, const pd_box *__restrict__ boxes,
                               const float *__restrict__ deltas, const int *__restrict__ counts, memory m)
{
    const size_t image = blockIdx.y, rows = (size_t)s.rows, k = (size_t)s.k;
    const int count = counts[image] < s.rows ? counts[image] : s.rows;
    for (size_t r = first_item(); count > 0 && r < (size_t)count; r += item_step()) {
        const size_t row = image * rows + r, first = row * (k + 1);
        float most = -INFINITY;
        double sum = 0;
        for (size_t c = 0; c <= k; c++) {
            const float x = pd_mean_logit(logits.at, logits.stages, first + c);
            if (x > most) most = x;
        }
        for (size_t c = 0; c <= k; c++)
            sum += (double)pd_softmax_term(pd_mean_logit(logits.at, logits.stages, first + c), most);
        pd_box box = original(s, image, boxes[row]);
        if (!s.class_boxes) m.box[row] = box;
        for (size_t c = 0; c < k; c++) {
            const float term = pd_softmax_term(pd_mean_logit(logits.at, logits.stages, first + c), most);
            const float score = pd_softmax_share(term, sum);
            if (!(score > s.cfg.score_thresh)) continue;
            if (s.class_boxes) {
                const float *d = deltas + 4 * (row * k + c);
                const pd_delta t = {d[0], d[1], d[2], d[3]};
                box = original(s, image,
                               pd_box_clip(&s.cfg.coder, pd_box_decode(&s.cfg.coder, boxes[row], t), s.sizes[4 * image],
                                           s.sizes[4 * image + 1]));
                m.box[row * k + c] = box;
            }
            add(s, m, image, rows * k, r * k + c, score, box);
        }
    }
}

/* ---- suppression ---- */

/* The smallest x of the block's threads, to all of them. */
__device__ __forceinline__ uint64_t block_min(uint64_t x, uint64_t *shared)
{
    shared[threadIdx.x] = x;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half && shared[threadIdx.x + half] < shared[threadIdx.x])
            shared[threadIdx.x] = shared[threadIdx.x + half];
        __syncthreads();
    }
    x = shared[0];
    __syncthreads();
    return x;
}

/* An entry's box, and its class; boxes and labels: the image's. */
__device__ __forceinline__ pd_box box_of(const pd_detections_shape &s, const pd_box *box, const int *labels,
                                         uint64_t order, int *label)
{
    const uint32_t pair = (uint32_t)order, row = pair / (uint32_t)s.k;
    *label = labels ? labels[pair] : (int)(pair - row * (uint32_t)s.k);
    return box[labels || s.class_boxes ? pair : row];
}

/* What is left of an entry when the last one has been kept: itself, with a lower score, or NONE. */
template <bool SOFT>
__device__ __forceinline__ uint64_t left_of(const pd_detections_shape &s, uint64_t order, pd_box b, int label,
                                            pd_box last, float last_area, int last_label)
{
    if (!SOFT) {
        const bool met = !s.cfg.nms.exact || label == last_label;
        return met && pd_nms_hits(last, last_area, b, pd_box_area(b), s.cfg.nms.iou) ? NONE : order;
    }
    const pd_soft_nms_cfg &soft = s.cfg.soft_nms;
    float score = pd_order_score(order);
    if (label == last_label) score *= pd_soft_nms_weight(soft.method, soft.iou, soft.sigma, last, b);
    return score >= soft.min_score ? pd_score_order(score, (int)(uint32_t)order) : NONE;
}

/* A block an image. */
template <bool SOFT>
__global__ void __launch_bounds__(PD_LIST_THREADS)
    suppress(pd_detections_shape s, memory m, size_t pairs, pd_detections_to to)
{
    __shared__ uint64_t shared[PD_LIST_THREADS];
    const size_t image = blockIdx.x, most = (size_t)s.cfg.nms.max_keep;
    const int found = m.found[2 * image];
    const float step = pd_bits_float((uint32_t)m.found[2 * image + 1]) + 1.f;
    const bool move = !SOFT && !s.cfg.nms.exact;
    const pd_box *box = m.box + image * (m.label ? (size_t)s.slots : s.class_boxes ? pairs : (size_t)s.rows);
    const int *labels = m.label ? m.label + image * (size_t)s.slots : NULL;
    uint64_t *list = m.list + image * pairs, last = NONE;
    pd_box last_box = {0, 0, 0, 0};
    float last_area = 0;
    int last_label = 0, kept = 0;
    for (; kept < s.cfg.nms.max_keep; kept++) {
        uint64_t best = NONE;
        for (int i = (int)threadIdx.x; i < found; i += PD_LIST_THREADS) {
            const uint64_t before = list[i];
            uint64_t order = before;
            if (before == NONE) continue;
            if (last != NONE) {
                int label;
                const pd_box b = box_of(s, box, labels, before, &label);
                order = before == last ? NONE
                                       : left_of<SOFT>(s, before, move ? pd_nms_moved(b, label, step) : b, label,
                                                       last_box, last_area, last_label);
            } else if (SOFT && !(pd_order_score(before) >= s.cfg.soft_nms.min_score)) {
                order = NONE;
            }
            if (order != before) list[i] = order;
            if (order < best) best = order;
        }
        last = block_min(best, shared);
        if (last == NONE) break;
        const pd_box own = box_of(s, box, labels, last, &last_label);
        last_box = move ? pd_nms_moved(own, last_label, step) : own;
        last_area = pd_box_area(last_box);
        if (threadIdx.x) continue;
        to.box[image * most + (size_t)kept] = own;
        to.score[image * most + (size_t)kept] = pd_order_score(last);
        to.label[image * most + (size_t)kept] = last_label;
    }
    if (threadIdx.x == 0) to.count[image] = kept;
    for (size_t r = (size_t)kept + threadIdx.x; r < most; r += PD_LIST_THREADS) {
        to.box[image * most + r] = pd_box{0, 0, 0, 0};
        to.score[image * most + r] = 0;
        to.label[image * most + r] = 0;
    }
}

int finish(const pd_detections_shape *s, const memory *m, const pd_detections_to *to, cudaStream_t stream)
{
    return launch_sync(s->cfg.soft ? suppress<true> : suppress<false>, dim3((unsigned)s->n), dim3(PD_LIST_THREADS),
                       stream, *s, *m, pairs_of(s), *to);
}

/* Anchors of an image whose best score is wanted: those of levels that are cut. */
size_t tops_of(const pd_topk_shape *top)
{
    size_t tops = 0;
    for (int l = 0; l < top->levels; l++) tops += top->count[l] > top->k ? (size_t)top->count[l] : 0;
    return tops;
}

/* A level of dense heads. */
template <class T> struct dense_level {
    int l;
    level_job job;
    pd_anchor_level anchors;
    const T *logits, *deltas;
};

template <class T>
int add_anchors(const pd_detections_shape *s, const memory *m, const dense_level<T> &v, cudaStream_t stream)
{
    const dim3 rows(blocks_for((size_t)v.job.count).x, (unsigned)s->n);
    const dim3 pairs(blocks_for((size_t)v.job.count * (size_t)s->k).x, (unsigned)s->n);
    if (s->slots)
        return launch(list_pairs<T>, pairs, dim3(PD_THREADS), stream, *s, v.job, v.l, v.anchors.count, v.logits, *m);
    const int code = launch(decode<T>, rows, dim3(PD_THREADS), stream, *s, v.job, v.anchors, v.deltas, *m);
    return code
               ? code
               : launch(dense_candidates<T>, pairs, dim3(PD_THREADS), stream, *s, v.job, v.anchors.count, v.logits, *m);
}

/* The best pairs of each level's list become the image's list. */
int choose_pairs(const pd_detections_shape *s, const memory *m, const pd_topk_shape *top, const pd_anchor_grid *grid,
                 const void *const *deltas, pd_store store, cudaStream_t stream)
{
    pd_order_lists lists = {s->n, top->levels, s->cfg.pre_nms, m->list, m->in_level, pairs_of(s), {0}, {0}};
    for (int l = 0; l < top->levels; l++) {
        const int64_t pairs = (int64_t)top->count[l] * s->k;
        lists.begin[l] = (size_t)top->slot[l] * (size_t)s->k;
        lists.slot[l + 1] = lists.slot[l] + (int)(pairs < s->cfg.pre_nms ? pairs : s->cfg.pre_nms);
    }
    int code = pd_topk_orders_fwd(&lists, m->sorted, m->chosen, stream);
    for (int l = 0; l < top->levels && !code; l++) {
        const int first = lists.slot[l], room = lists.slot[l + 1] - first;
        const pd_anchor_level level = pd_anchor_level_of(grid, l);
        code = by_store(store, [&](auto t) {
            using T = decltype(t);
            return launch(take_pairs<T>, dim3(blocks_for((size_t)room).x, (unsigned)s->n), dim3(PD_THREADS), stream, *s,
                          first, room, l, level, (const T *)deltas[l], *m);
        });
    }
    return code;
}

} // namespace

size_t pd_dense_detections_bytes(const pd_detections_shape *s, const pd_topk_shape *top)
{
    memory m;
    return lay_out(s, tops_of(top), NULL, &m);
}

int pd_dense_detections_fwd(const pd_detections_shape *s, const pd_topk_shape *top, const pd_anchor_grid *grid,
                            const void *const *logits, const void *const *deltas, pd_store store,
                            const pd_detections_to *to, void *work, cudaStream_t stream)
{
    memory m;
    pd_topk_shape choose = *top;
    float *scores;
    int code;
    (void)lay_out(s, tops_of(top), work, &m);
    scores = m.top;
    choose.store = PD_STORE_32;
    code = begin_lists(s, &m, stream);
    for (int l = 0; l < top->levels && !code; l++) {
        if (top->count[l] <= top->k) continue;
        const size_t anchors = (size_t)s->n * (size_t)top->count[l];
        choose.scores[l] = scores;
        code = by_store(store, [&](auto t) {
            using T = decltype(t);
            return by_width(s->k % 8 == 0, [&](auto width) {
                return launch(best_scores<T, decltype(width)::value>, blocks_for(anchors), dim3(PD_THREADS), stream,
                              (const T *)logits[l], s->k, anchors, scores);
            });
        });
        scores += anchors;
    }
    if (!code) code = pd_topk_fwd(&choose, m.pick, m.list, stream); /* the list is not begun yet */
    for (int l = 0; l < top->levels && !code; l++) {
        const level_job j = {top->slot[l], top->slot[l + 1] - top->slot[l], m.pick};
        code = by_store(store, [&](auto t) {
            using T = decltype(t);
            const dense_level<T> v = {l, j, pd_anchor_level_of(grid, l), (const T *)logits[l], (const T *)deltas[l]};
            return add_anchors(s, &m, v, stream);
        });
    }
    if (!code && s->slots) code = choose_pairs(s, &m, top, grid, deltas, store, stream);
    return code ? code : finish(s, &m, to, stream);
}

size_t pd_roi_detections_bytes(const pd_detections_shape *s)
{
    memory m;
    return lay_out(s, 0, NULL, &m);
}

int pd_roi_detections_fwd(const pd_detections_shape *s, const pd_stage_logits *logits, const pd_box *boxes,
                          const float *deltas, const int *counts, const pd_detections_to *to, void *work,
                          cudaStream_t stream)
{
    memory m;
    (void)lay_out(s, 0, work, &m);
    int code = begin_lists(s, &m, stream);
    if (!code)
        code = launch(roi_candidates, dim3(blocks_for((size_t)s->rows).x, (unsigned)s->n), dim3(PD_THREADS), stream, *s,
                      *logits, boxes, deltas, counts, m);
    return code ? code : finish(s, &m, to, stream);
}
