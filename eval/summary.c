#include "eval/arrays.h"
#include "eval/mean.h"

#include <stdio.h>
#include <stdlib.h>

#define ALL SIZE_MAX

/* Where a mean is taken. */
typedef struct {
    pd_mean *mean;
    const pd_coco_result *r;
    const char *frequency; /* LVIS: group of each category */
} summing;

/* A threshold that the mean asks for: all (0), or every one of this value (a list may hold it twice). */
static bool takes_part(const pd_coco_result *r, size_t t, double threshold)
{
    return threshold == 0 || r->iou_thrs[t] == threshold;
}

/* Mean precision of area a and limit m over recalls and thresholds (or one threshold) and categories (or k alone; or
 * those of an LVIS group). */
static double mean_precision(const summing *s, double threshold, size_t k, char group, size_t a, size_t m)
{
    const pd_coco_result *const r = s->r;
    pd_mean *const mean = s->mean;
    pd_mean_begin(mean);
    if (a >= r->n_areas || m >= r->n_limits) return -1;
    const size_t k0 = k == ALL ? 0 : k, k1 = k == ALL ? r->n_categories : k + 1;
    const size_t stride = r->n_areas * r->n_limits * r->n_iou * r->n_recall;
    for (size_t t = 0; t < r->n_iou; t++) {
        if (!takes_part(r, t, threshold)) continue;
        const double *const row = r->arrays->precision + pd_arrays_at(r, t, 0, 0, a, m);
        for (size_t rec = 0; rec < r->n_recall; rec++)
            for (size_t c = k0; c < k1; c++)
                if (!group || s->frequency[c] == group) pd_mean_add(mean, row[c * stride + rec]);
    }
    return pd_mean_end(mean);
}

static double mean_recall(const summing *s, double threshold, size_t k, size_t a, size_t m)
{
    const pd_coco_result *const r = s->r;
    pd_mean *const mean = s->mean;
    pd_mean_begin(mean);
    if (a >= r->n_areas || m >= r->n_limits) return -1;
    const size_t k0 = k == ALL ? 0 : k, k1 = k == ALL ? r->n_categories : k + 1;
    for (size_t t = 0; t < r->n_iou; t++)
        for (size_t c = k0; c < k1 && takes_part(r, t, threshold); c++)
            pd_mean_add(mean, r->arrays->recall[pd_arrays_recall_at(r, t, c, a, m)]);
    return pd_mean_end(mean);
}

/* One line of the summary: what it averages over. */
typedef struct {
    const char *name;
    bool precision;
    double threshold; /* 0: all */
    int area;         /* index among the areas */
    char group;       /* LVIS: 'r', 'c', 'f', or 0 for all */
    int limit;        /* index among the limits; -1: the "largest" one, -2: the limit pycocotools asks for by value */
} stat_row;

enum { LARGEST = -1, BY_VALUE = -2 };

static const stat_row box_rows[] = {
    {"AP", true, 0, 0, 0, BY_VALUE},  {"AP50", true, 0.5, 0, 0, LARGEST}, {"AP75", true, 0.75, 0, 0, LARGEST},
    {"APs", true, 0, 1, 0, LARGEST},  {"APm", true, 0, 2, 0, LARGEST},    {"APl", true, 0, 3, 0, LARGEST},
    {"AR1", false, 0, 0, 0, 0},       {"AR10", false, 0, 0, 0, 1},        {"AR100", false, 0, 0, 0, 2},
    {"ARs", false, 0, 1, 0, LARGEST}, {"ARm", false, 0, 2, 0, LARGEST},   {"ARl", false, 0, 3, 0, LARGEST},
};
static const stat_row keypoint_rows[] = {
    {"AP", true, 0, 0, 0, BY_VALUE},      {"AP50", true, 0.5, 0, 0, BY_VALUE},   {"AP75", true, 0.75, 0, 0, BY_VALUE},
    {"APm", true, 0, 1, 0, BY_VALUE},     {"APl", true, 0, 2, 0, BY_VALUE},      {"AR", false, 0, 0, 0, BY_VALUE},
    {"AR50", false, 0.5, 0, 0, BY_VALUE}, {"AR75", false, 0.75, 0, 0, BY_VALUE}, {"ARm", false, 0, 1, 0, BY_VALUE},
    {"ARl", false, 0, 2, 0, BY_VALUE},
};
static const stat_row lvis_rows[] = {
    {"AP", true, 0, 0, 0, LARGEST},       {"AP50", true, 0.5, 0, 0, LARGEST},   {"AP75", true, 0.75, 0, 0, LARGEST},
    {"APs", true, 0, 1, 0, LARGEST},      {"APm", true, 0, 2, 0, LARGEST},      {"APl", true, 0, 3, 0, LARGEST},
    {"APr", true, 0, 0, 'r', LARGEST},    {"APc", true, 0, 0, 'c', LARGEST},    {"APf", true, 0, 0, 'f', LARGEST},
    {"AR@300", false, 0, 0, 0, LARGEST},  {"ARs@300", false, 0, 1, 0, LARGEST}, {"ARm@300", false, 0, 2, 0, LARGEST},
    {"ARl@300", false, 0, 3, 0, LARGEST},
};
static const char *const lvis_areas[] = {"all", "s", "m", "l"};
static const char *const box_areas[] = {"all", "small", "medium", "large"};
static const char *const keypoint_areas[] = {"all", "medium", "large"};

/* pycocotools' "largest" limit is the third of the list. */
static size_t largest_limit(const pd_coco_result *r)
{
    return r->type != PD_COCO_KEYPOINTS && r->n_limits > 3 ? 2 : r->n_limits - 1;
}

/* Index of a value, or SIZE_MAX. */
static size_t find_limit(const pd_coco_result *r, size_t limit)
{
    for (size_t m = 0; m < r->n_limits; m++)
        if (r->limits[m] == limit) return m;
    return SIZE_MAX;
}

static void write_line(char *out, size_t room, const summing *s, const stat_row *row, size_t limit, double value)
{
    const pd_coco_result *const r = s->r;
    const char *const title = row->precision ? "Average Precision" : "Average Recall";
    const char *const short_title = row->precision ? "(AP)" : "(AR)";
    char thresholds[64];
    if (row->threshold > 0)
        snprintf(thresholds, sizeof thresholds, "%0.2f", row->threshold);
    else
        snprintf(thresholds, sizeof thresholds, "%0.2f:%0.2f", r->iou_thrs[0], r->iou_thrs[r->n_iou - 1]);
    int n;
    if (s->frequency) {
        const char group[2] = {row->group, '\0'};
        n = snprintf(out, room, " %-18s %s @[ IoU=%-9s | area=%6s | maxDets=%3zu catIds=%3s] = %0.3f", title,
                     short_title, thresholds, lvis_areas[row->area], limit, row->group ? group : "all", value);
    } else {
        n = snprintf(out, room, " %-18s %s @[ IoU=%-9s | area=%6s | maxDets=%3zu ] = %0.3f", title, short_title,
                     thresholds, (r->type == PD_COCO_KEYPOINTS ? keypoint_areas : box_areas)[row->area], limit, value);
    }
    if (n < 0) out[0] = '\0';
}

static void summarize_row(pd_coco_result *r, const summing *s, const stat_row *row, int i)
{
    const size_t wanted = r->type == PD_COCO_KEYPOINTS ? 20 : 100; /* what pycocotools looks up */
    const size_t m = row->limit == LARGEST    ? largest_limit(r)
                     : row->limit == BY_VALUE ? find_limit(r, wanted)
                                              : (size_t)row->limit;
    const double value = row->precision ? mean_precision(s, row->threshold, ALL, row->group, (size_t)row->area, m)
                                        : mean_recall(s, row->threshold, ALL, (size_t)row->area, m);
    r->stats[i] = value;
    r->names[i] = row->name;
    r->lines[i][0] = '\0';
    if (row->limit == BY_VALUE)
        write_line(r->lines[i], sizeof r->lines[i], s, row, wanted, value);
    else if (m < r->n_limits)
        write_line(r->lines[i], sizeof r->lines[i], s, row, r->limits[m], value);
}

static void summarize_category(const summing *s, size_t k, pd_coco_category_ap *out)
{
    const pd_coco_result *const r = s->r;
    const size_t m = largest_limit(r);
    const bool points = r->type == PD_COCO_KEYPOINTS;
    out->ap = mean_precision(s, 0, k, 0, 0, m);
    out->ap50 = mean_precision(s, 0.5, k, 0, 0, m);
    out->ap75 = mean_precision(s, 0.75, k, 0, 0, m);
    out->ap_small = points ? -1 : mean_precision(s, 0, k, 0, 1, m);
    out->ap_medium = mean_precision(s, 0, k, 0, points ? 1 : 2, m);
    out->ap_large = mean_precision(s, 0, k, 0, points ? 2 : 3, m);
    out->ar = mean_recall(s, 0, k, 0, m);
}

pd_status pd_coco_summarize(pd_coco_result *r, const char *frequency, pd_err *err)
{
    pd_mean *const mean = malloc(sizeof *mean);
    if (!mean) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    const summing s = {mean, r, frequency};
    const stat_row *const rows = frequency ? lvis_rows : r->type == PD_COCO_KEYPOINTS ? keypoint_rows : box_rows;
    r->n_stats = frequency ? 13 : r->type == PD_COCO_KEYPOINTS ? 10 : 12;
    for (int i = 0; i < r->n_stats; i++) summarize_row(r, &s, &rows[i], i);
    r->ap_max = mean_precision(&s, 0, ALL, 0, 0, r->n_limits - 1);
    for (size_t k = 0; k < r->n_categories; k++) summarize_category(&s, k, &r->categories[k]);
    free(mean);
    return PD_OK;
}

double pd_coco_precision(const pd_coco_result *r, size_t t, size_t rec, size_t k, size_t a, size_t m)
{
    return r->arrays->precision[pd_arrays_at(r, t, rec, k, a, m)];
}

double pd_coco_score(const pd_coco_result *r, size_t t, size_t rec, size_t k, size_t a, size_t m)
{
    return r->arrays->scores ? r->arrays->scores[pd_arrays_at(r, t, rec, k, a, m)] : -1;
}

double pd_coco_recall(const pd_coco_result *r, size_t t, size_t k, size_t a, size_t m)
{
    return r->arrays->recall[pd_arrays_recall_at(r, t, k, a, m)];
}

static void dump_one(pd_out *out, const pd_coco_result *r, const double *array, bool has_recalls)
{
    const size_t R = has_recalls ? r->n_recall : 1;
    for (size_t t = 0; t < r->n_iou; t++)
        for (size_t rec = 0; rec < R; rec++)
            for (size_t k = 0; k < r->n_categories; k++)
                for (size_t a = 0; a < r->n_areas; a++)
                    for (size_t m = 0; m < r->n_limits; m++)
                        pd_out_write(out, &array[pd_arrays_recall_at(r, t, k, a, m) * R + rec], sizeof *array);
}

pd_status pd_coco_dump_arrays(const pd_coco_result *r, const char *path, pd_err *err)
{
    if (!r->arrays->scores)
        return PD_FAIL(err, PD_EINVAL, "%s: the arrays were not kept; evaluate with PD_COCO_KEEP_ARRAYS", path);
    pd_out *out;
    PD_TRY(pd_out_open(&out, path, err));
    dump_one(out, r, r->arrays->precision, true);
    dump_one(out, r, r->arrays->recall, false);
    dump_one(out, r, r->arrays->scores, true);
    return pd_out_commit(out, err);
}
