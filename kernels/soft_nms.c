#include "kernels/soft_nms.h"

#include <math.h>

size_t pd_soft_nms_work(int n)
{
    return (size_t)n * sizeof(int) + 8;
}

static float weight(const pd_soft_nms_cfg *cfg, pd_box a, pd_box b)
{
    const float inter = pd_box_intersection(a, b);
    if (!(inter > 0)) return 1;
    const float iou = inter / ((pd_box_area(a) + pd_box_area(b)) - inter);
    if (cfg->method == PD_SOFT_GAUSSIAN) return expf(-(iou * iou) / cfg->sigma);
    return iou > cfg->iou ? 1 - iou : 1;
}

int pd_soft_nms(int *keep, const pd_box *boxes, float *scores, const int *labels, int n, const pd_soft_nms_cfg *cfg,
                void *work)
{
    int *left = work, rest = 0, kept = 0; /* left: indices that still compete, ascending */
    for (int i = 0; i < n; i++)
        if (scores[i] >= cfg->min_score) left[rest++] = i;
    while (rest > 0 && kept < cfg->max_keep) {
        int best = left[0], at = 0;
        for (int i = 1; i < rest; i++)
            if (scores[left[i]] > scores[best]) best = left[i];
        keep[kept++] = best;
        for (int i = 0; i < rest; i++) {
            const int j = left[i];
            if (j == best) continue;
            if (!labels || labels[j] == labels[best]) scores[j] *= weight(cfg, boxes[best], boxes[j]);
            if (scores[j] >= cfg->min_score) left[at++] = j;
        }
        rest = at;
    }
    return kept;
}
