#include "kernels/soft_nms_math.h"

size_t pd_soft_nms_work(int n)
{
    return (size_t)n * sizeof(int) + 8;
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
            if (!labels || labels[j] == labels[best])
                scores[j] *= pd_soft_nms_weight(cfg->method, cfg->iou, cfg->sigma, boxes[best], boxes[j]);
            if (scores[j] >= cfg->min_score) left[at++] = j;
        }
        rest = at;
    }
    return kept;
}
