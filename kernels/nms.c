#include "kernels/nms.h"
#include "kernels/nms_math.h"
#include "kernels/simd.h"
#include "kernels/topk.h"

#define CHUNK 32 /* kept boxes tested at once */

/* Boxes kept so far, by coordinate. */
typedef struct kept {
    float *x1, *y1, *x2, *y2, *area;
    int *label;
    int n;
} kept;

/* Does any of the kept boxes [from, to) suppress this one? */
PD_CLONES static int any_hit(const kept *k, int from, int to, pd_box box, float area, int label, float iou)
{
    const float *restrict x1 = k->x1, *restrict y1 = k->y1, *restrict x2 = k->x2, *restrict y2 = k->y2;
    const float *restrict areas = k->area;
    const int *restrict labels = k->label;
    int hit = 0;
    for (int i = from; i < to; i++) {
        const pd_box other = {x1[i], y1[i], x2[i], y2[i]};
        hit |= pd_nms_hits(other, areas[i], box, area, iou) & (labels[i] == label);
    }
    return hit;
}

static bool suppressed(const kept *k, pd_box box, float area, int label, float iou)
{
    for (int from = 0; from < k->n; from += CHUNK)
        if (any_hit(k, from, k->n - from < CHUNK ? k->n : from + CHUNK, box, area, label, iou)) return true;
    return false;
}

static float largest_coordinate(const pd_box *boxes, int n)
{
    float m = n ? boxes[0].x1 : 0;
    for (int i = 0; i < n; i++) {
        const float v = pd_box_largest(boxes[i]);
        if (v > m) m = v;
    }
    return m;
}

static int room(int n, const pd_nms_cfg *cfg)
{
    const int keep = n < cfg->max_keep ? n : cfg->max_keep;
    return keep > 0 ? keep : 0;
}

size_t pd_nms_work(int n, const pd_nms_cfg *cfg)
{
    return pd_topk_work(n) + (size_t)n * sizeof(int) + (size_t)room(n, cfg) * (5 * sizeof(float) + sizeof(int)) + 8;
}

int pd_nms(int *keep, const pd_box *boxes, const float *scores, const int *labels, int n, const pd_nms_cfg *cfg,
           void *work)
{
    const size_t most = (size_t)room(n, cfg);
    int *order = (int *)(void *)((char *)work + pd_topk_work(n));
    float *f = (float *)(order + n);
    kept k = {f, f + most, f + 2 * most, f + 3 * most, f + 4 * most, (int *)(f + 5 * most), 0};
    const bool move = labels && !cfg->exact;
    const float step = move ? largest_coordinate(boxes, n) + 1.f : 0;
    pd_topk(order, scores, n, n, work);
    for (int r = 0; r < n && (size_t)k.n < most; r++) {
        const int i = order[r], label = labels && cfg->exact ? labels[i] : 0;
        const pd_box b = move ? pd_nms_moved(boxes[i], labels[i], step) : boxes[i];
        const float area = pd_box_area(b);
        if (suppressed(&k, b, area, label, cfg->iou)) continue;
        k.x1[k.n] = b.x1;
        k.y1[k.n] = b.y1;
        k.x2[k.n] = b.x2;
        k.y2[k.n] = b.y2;
        k.area[k.n] = area;
        k.label[k.n] = label;
        keep[k.n++] = i;
    }
    return k.n;
}

/* Candidates of pd_multiclass_nms within its work memory. */
typedef struct candidates {
    pd_box *box;
    float *score;
    int *row, *label, *keep;
    void *work;
} candidates;

static candidates lay_out(void *work, size_t count)
{
    candidates c = {.box = work};
    c.score = (float *)(c.box + count);
    c.row = (int *)(c.score + count);
    c.label = c.row + count;
    c.keep = c.label + count;
    c.work = c.keep + count + count % 2;
    return c;
}

size_t pd_multiclass_nms_work(int n, int k, const pd_nms_cfg *cfg)
{
    const size_t count = (size_t)n * (size_t)k;
    return count * (sizeof(pd_box) + sizeof(float) + 3 * sizeof(int)) + 8 + pd_nms_work((int)count, cfg);
}

int pd_multiclass_nms(int *row, int *label, const pd_box *boxes, const float *scores, int n, int stride, int k,
                      float score_thresh, const pd_nms_cfg *cfg, void *work)
{
    const candidates c = lay_out(work, (size_t)n * (size_t)k);
    int count = 0;
    for (int r = 0; r < n; r++)
        for (int j = 0; j < k; j++) {
            const float score = scores[(size_t)r * (size_t)stride + (size_t)j];
            if (!(score > score_thresh)) continue;
            c.box[count] = boxes[r];
            c.score[count] = score;
            c.row[count] = r;
            c.label[count++] = j;
        }
    const int kept_count = pd_nms(c.keep, c.box, c.score, c.label, count, cfg, c.work);
    for (int i = 0; i < kept_count; i++) {
        row[i] = c.row[c.keep[i]];
        label[i] = c.label[c.keep[i]];
    }
    return kept_count;
}
