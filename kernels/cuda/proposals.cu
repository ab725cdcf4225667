/* Proposals: the best of each level are decoded, then suppressed together. */
#include "kernels/cuda/launch.cuh"

#include "kernels/anchors_math.h"
#include "kernels/cuda/proposals.h"
#include "kernels/nms_math.h"
#include "kernels/proposals_math.h"
#include "kernels/topk_math.h"

using namespace pd;

namespace
{

struct memory {
    int *pick;    /* (n, room) */
    float *score; /* (n, room) */
    int *keep;    /* (n, max_keep) */
    void *list, *suppress;
};

/* With work NULL: only how many bytes. */
size_t lay_out(const pd_proposals_shape *s, void *work, memory *m)
{
    const size_t all = (size_t)s->nms.n * (size_t)s->nms.room;
    const size_t keep = (size_t)s->nms.n * (size_t)s->nms.cfg.max_keep;
    char *const base = static_cast<char *>(work);
    size_t at = 0;
    m->pick = reinterpret_cast<int *>(base);
    m->score = reinterpret_cast<float *>(base + (at += pd_align_up(all * sizeof(int))));
    m->keep = reinterpret_cast<int *>(base + (at += pd_align_up(all * sizeof(float))));
    m->list = base + (at += pd_align_up(keep * sizeof(int)));
    m->suppress = base + (at += pd_nms_list_bytes(&s->nms));
    return at + pd_nms_bytes(&s->nms);
}

/* One level's candidates. */
struct level_job {
    int level, first, count; /* its slots */
    int room;
    const int *pick, *sizes;
    float *score;
    pd_nms_list list;
};

/* grid (blocks over the level's slots, images) */
template <class T>
__global__ void decode(level_job j, pd_anchor_level v, pd_box_coder coder, const T *__restrict__ logits,
                       const T *__restrict__ deltas)
{
    const size_t image = blockIdx.y, first = image * (size_t)j.room;
    const int *size = j.sizes + 4 * image;
    logits += image * (size_t)v.count;
    deltas += image * (size_t)v.count * 4;
    for (size_t i = first_item(); i < (size_t)j.count; i += item_step()) {
        const size_t slot = (size_t)j.first + i, at = first + slot;
        const int place = j.pick[at], cell = place / v.per_cell, y = cell / v.w, x = cell - y * v.w;
        const T *d = deltas + 4 * (size_t)place;
        const pd_delta t = {to_float(d[0]), to_float(d[1]), to_float(d[2]), to_float(d[3])};
        const pd_box anchor = pd_anchor_moved(v.base[place - cell * v.per_cell], x * v.stride, y * v.stride);
        pd_box box;
        if (!pd_proposal_box(&box, &coder, anchor, t, size[0], size[1])) continue;
        const float score = pd_proposal_score(to_float(logits[place]));
        j.score[at] = score;
        j.list.box[at] = box;
        j.list.label[at] = j.level;
        j.list.order[at] = pd_score_order(score, (int)slot);
        atomicAdd(&j.list.found[2 * image], 1);
        atomicMax(&j.list.found[2 * image + 1], (int)pd_float_bits(pd_box_largest(box)));
    }
}

/* grid (blocks over rows, images) */
__global__ void write_rows(pd_nms_shape s, const pd_box *__restrict__ box, const float *__restrict__ from,
                           const int *__restrict__ keep, const int *__restrict__ count, pd_box *__restrict__ boxes,
                           float *__restrict__ score)
{
    const size_t image = blockIdx.y, first = image * (size_t)s.room, row = image * (size_t)s.cfg.max_keep;
    for (size_t r = first_item(); r < (size_t)s.cfg.max_keep; r += item_step()) {
        const bool used = (int)r < count[image];
        const size_t at = first + (used ? (size_t)keep[row + r] : 0);
        boxes[row + r] = used ? box[at] : pd_box{0, 0, 0, 0};
        score[row + r] = used ? from[at] : 0.f;
    }
}

} // namespace

size_t pd_proposals_bytes(const pd_proposals_shape *s)
{
    memory m;
    return lay_out(s, NULL, &m);
}

int pd_proposals_fwd(const pd_proposals_shape *s, const pd_anchor_grid *grid, const int *sizes, pd_box *boxes,
                     float *score, int *count, void *work, cudaStream_t stream)
{
    memory m;
    (void)lay_out(s, work, &m);
    const pd_nms_list list = pd_nms_list_in(m.list, &s->nms);
    int code = pd_topk_fwd(&s->top, m.pick, list.order, stream); /* the list is not begun yet */
    if (!code) code = pd_nms_clear(&list, &s->nms, stream);
    for (int l = 0; l < grid->levels && !code; l++) {
        const int first = s->top.slot[l], slots = s->top.slot[l + 1] - first;
        const level_job j = {l, first, slots, s->nms.room, m.pick, sizes, m.score, list};
        const pd_anchor_level level = pd_anchor_level_of(grid, l);
        code = by_store(s->top.store, [&](auto t) {
            using T = decltype(t);
            return launch(decode<T>, dim3(blocks_for((size_t)slots).x, (unsigned)s->nms.n), dim3(PD_THREADS), stream, j,
                          level, s->coder, (const T *)s->top.scores[l], (const T *)s->deltas[l]);
        });
    }
    if (!code) code = pd_nms_fwd(&s->nms, &list, m.keep, count, m.suppress, stream);
    if (code) return code;
    return launch(write_rows, dim3(blocks_for((size_t)s->nms.cfg.max_keep).x, (unsigned)s->nms.n), dim3(PD_THREADS),
                  stream, s->nms, (const pd_box *)list.box, (const float *)m.score, (const int *)m.keep,
                  (const int *)count, boxes, score);
}
