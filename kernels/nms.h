/* nms.h: non-maximum suppression, the greedy one.
 *
 * Boxes are taken by descending score, equal scores by ascending index; one is kept unless a kept box of its class
 * overlaps it with IoU > iou, tested as  inter > iou * ((area + area') - inter)  in float32. So boxes without area
 * never suppress each other. (The strict test is that of mmcv's GPU kernel, with which all published numbers were
 * made.)
 *
 * Classes: by default mmdetection's trick is imitated to the bit: every coordinate is moved by label * (M + 1), M the
 * largest coordinate of all boxes, and one suppression runs over all. The offset rounds the coordinates, which can turn
 * a test that is very close. exact = true compares only boxes of equal label, unmoved. */
#ifndef PD_NMS_H
#define PD_NMS_H

#include "engine/box.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct pd_nms_cfg {
    float iou;
    bool exact;
    int max_keep; /* stops when so many are kept */
} pd_nms_cfg;

/* Bytes of work memory for n boxes, aligned to 8. */
size_t pd_nms_work(int n, const pd_nms_cfg *cfg);

/* keep: (min(n, max_keep)) indices, by descending score. labels: (n) >= 0, or NULL: all of one class. Returns how many
 * are kept. */
int pd_nms(int *keep, const pd_box *boxes, const float *scores, const int *labels, int n, const pd_nms_cfg *cfg,
           void *work);

/* n boxes with a score for each of k classes: every (row, class) with score > score_thresh is a candidate, row-major;
 * then pd_nms. scores: (n, stride), of which the first k columns are read. row, label: (max_keep). Returns how many are
 * kept. work: pd_multiclass_nms_work bytes. */
size_t pd_multiclass_nms_work(int n, int k, const pd_nms_cfg *cfg);
int pd_multiclass_nms(int *row, int *label, const pd_box *boxes, const float *scores, int n, int stride, int k,
                      float score_thresh, const pd_nms_cfg *cfg, void *work);

#endif
