#include "eval/bootstrap.h"

#include "engine/rng.h"
#include "eval/matches.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Buffers of one thread. */
typedef struct {
    uint32_t *weight;  /* (images) how often the image was drawn */
    double *precision; /* at true positives of one threshold */
    uint32_t *seen,
        *hits;      /* (room, T) per true positive: detections that count so far; how many copies it stands for */
    size_t *n_hits; /* (T) */
} scratch;

typedef struct {
    const pd_coco_result *results[2];
    size_t n_results;
    const pd_coco_bootstrap *how;
    uint32_t *images; /* (n_images) those evaluated */
    size_t n_images, all_images, room;
    int metric_threshold[PD_COCO_METRICS]; /* index, -1: all, -2: not evaluated */
    scratch *scratch;                      /* (threads) */
    double *values;                        /* (rounds, n_results, PD_COCO_METRICS) */
} job;

/* Average of the precision envelope at the recalls, of n objects; hits in order, each with a count of copies. */
static double average_precision(const scratch *s, const pd_coco_result *r, size_t t, size_t room, size_t n)
{
    const size_t m = s->n_hits[t];
    const uint32_t *const seen = s->seen + t * room, *const hits = s->hits + t * room;
    /* Copies of one image stand together: the last copy of a hit has the highest precision of them. */
    size_t tp = 0;
    for (size_t i = 0; i < m; i++) {
        tp += hits[i];
        s->precision[i] = (double)tp / ((double)seen[i] + 0x1p-52);
    }
    for (size_t i = m; i-- > 1;)
        if (s->precision[i] > s->precision[i - 1]) s->precision[i - 1] = s->precision[i];
    double sum = 0;
    size_t at = 0;
    tp = m ? hits[0] : 0;
    for (size_t rec = 0; rec < r->n_recall; rec++) {
        while (at < m && (double)tp / (double)n < r->recall_thrs[rec]) {
            if (++at < m) tp += hits[at];
        }
        if (at >= m) break;
        sum += s->precision[at];
    }
    return sum / (double)r->n_recall;
}

/* AP of every threshold, of one category and draw; false where there is nothing to find. */
static bool class_precisions(double *ap, const scratch *s, const pd_coco_result *r, const pd_kept_class *class,
                             size_t room)
{
    const size_t T = r->n_iou;
    size_t n = 0;
    for (size_t i = 0; i < class->objects; i++) n += s->weight[class->images[i]];
    if (!n) return false;
    uint32_t seen = 0, ignored[PD_MATCH_THRESHOLDS] = {0};
    const uint32_t all = T < 32 ? (1u << T) - 1 : UINT32_MAX;
    memset(s->n_hits, 0, T * sizeof *s->n_hits);
    for (size_t i = 0; i < class->n; i++) {
        const uint32_t w = s->weight[class->list[i].image];
        const pd_match fate = class->list[i].fate;
        if (!w || fate.ignored == all) continue;
        seen += w;
        for (uint32_t bits = fate.ignored; bits; bits &= bits - 1) ignored[__builtin_ctz(bits)] += w;
        for (uint32_t bits = fate.matched & ~fate.ignored; bits; bits &= bits - 1) {
            const size_t t = (size_t)__builtin_ctz(bits), k = t * room + s->n_hits[t]++;
            s->seen[k] = seen - ignored[t];
            s->hits[k] = w;
        }
    }
    for (size_t t = 0; t < T; t++) ap[t] = average_precision(s, r, t, room, n);
    return true;
}

static void measure(double out[PD_COCO_METRICS], const job *work, const scratch *s, const pd_coco_result *r)
{
    double sums[PD_MATCH_THRESHOLDS] = {0}, ap[PD_MATCH_THRESHOLDS];
    size_t classes = 0;
    for (size_t k = 0; k < r->n_categories; k++) {
        if (!class_precisions(ap, s, r, &r->matches->classes[k], work->room)) continue;
        for (size_t t = 0; t < r->n_iou; t++) sums[t] += ap[t];
        classes++;
    }
    for (int m = 0; m < PD_COCO_METRICS; m++) {
        const int at = work->metric_threshold[m];
        double sum = 0;
        if (at >= 0) sum = sums[at];
        for (size_t t = 0; at == -1 && t < r->n_iou; t++) sum += sums[t] / (double)r->n_iou;
        out[m] = classes && at != -2 ? sum / (double)classes : -1;
    }
}

static void resample(void *arg, size_t begin, size_t end, int thread)
{
    (void)end;
    const job *const work = arg;
    const scratch *const s = &work->scratch[thread];
    memset(s->weight, 0, work->all_images * sizeof *s->weight);
    if (begin == 0) { /* round 0 is the images as they are */
        for (size_t i = 0; i < work->n_images; i++) s->weight[work->images[i]] = 1;
    } else {
        pd_rng rng = pd_rng_make(work->how->seed, (uint32_t)begin, 0);
        for (size_t i = 0; i < work->n_images; i++)
            s->weight[work->images[pd_rng_below(&rng, (uint32_t)work->n_images)]]++;
    }
    double *const out = work->values + begin * work->n_results * PD_COCO_METRICS;
    for (size_t i = 0; i < work->n_results; i++) measure(out + i * PD_COCO_METRICS, work, s, work->results[i]);
}

/* ---- setting up ---- */

static int find_threshold(const pd_coco_result *r, double threshold)
{
    for (size_t t = 0; t < r->n_iou; t++)
        if (r->iou_thrs[t] == threshold) return (int)t;
    return -2;
}

static pd_status check(const job *work, pd_err *err)
{
    const pd_coco_bootstrap *const how = work->how;
    if (how->rounds < 2 || how->rounds > UINT32_MAX - 1)
        return PD_FAIL(err, PD_EINVAL, "%zu resamples; expected 2 or more", how->rounds);
    if (!(how->level > 0 && how->level < 1))
        return PD_FAIL(err, PD_EINVAL, "a level of %g; expected 0 to 1", how->level);
    const pd_coco_result *const a = work->results[0];
    for (size_t i = 0; i < work->n_results; i++) {
        const pd_coco_result *const b = work->results[i];
        if (!b->matches) return PD_FAIL(err, PD_EINVAL, "evaluated without PD_COCO_KEEP_MATCHES");
        if (b->n_iou != a->n_iou || b->n_recall != a->n_recall || b->images != a->images ||
            b->matches->n_images != a->matches->n_images ||
            memcmp(a->iou_thrs, b->iou_thrs, a->n_iou * sizeof *a->iou_thrs))
            return PD_FAIL(err, PD_EINVAL, "the results are not of the same images and thresholds");
    }
    return PD_OK;
}

/* Room for the true positives of the largest category. */
static pd_status make_scratch(job *work, int threads, pd_arena *arena, pd_err *err)
{
    const size_t T = work->results[0]->n_iou;
    for (size_t i = 0; i < work->n_results; i++)
        for (size_t k = 0; k < work->results[i]->n_categories; k++) {
            const size_t n = work->results[i]->matches->classes[k].objects;
            work->room = n > work->room ? n : work->room;
        }
    PD_TRY(PD_ALLOC(&work->scratch, arena, (size_t)threads, err));
    for (int t = 0; t < threads; t++) {
        scratch *const s = &work->scratch[t];
        PD_TRY(PD_ALLOC(&s->weight, arena, work->all_images, err));
        PD_TRY(PD_ALLOC(&s->precision, arena, work->room, err));
        PD_TRY(PD_ALLOC(&s->seen, arena, work->room * T, err));
        PD_TRY(PD_ALLOC(&s->hits, arena, work->room * T, err));
        PD_TRY(PD_ALLOC(&s->n_hits, arena, T, err));
    }
    return PD_ALLOC(&work->values, arena, (work->how->rounds + 1) * work->n_results * PD_COCO_METRICS, err);
}

static pd_status run(job *work, pd_pool *pool, pd_arena *arena, pd_err *err)
{
    PD_TRY(check(work, err));
    const pd_coco_result *const r = work->results[0];
    work->all_images = r->matches->n_images;
    work->n_images = r->images;
    work->images = r->matches->images;
    work->metric_threshold[PD_COCO_METRIC_AP] = -1;
    work->metric_threshold[PD_COCO_METRIC_AP50] = find_threshold(r, 0.5);
    work->metric_threshold[PD_COCO_METRIC_AP75] = find_threshold(r, 0.75);
    PD_TRY(make_scratch(work, pd_pool_threads(pool), arena, err));
    pd_parallel_each(pool, work->how->rounds + 1, resample, work);
    return PD_OK;
}

/* ---- reading the resamples ---- */

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear interpolation between order statistics, as numpy's percentile. */
static double percentile(const double *sorted, size_t n, double share)
{
    const double at = share * (double)(n - 1);
    const size_t i = (size_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static double normal_share(double z)
{
    return 0.5 * erfc(-z / 1.4142135623730951);
}

/* The z below which `share` of a normal distribution lies, by bisection. */
static double normal_point(double share)
{
    double low = -40, high = 40;
    for (int i = 0; i < 100; i++) {
        const double middle = (low + high) / 2;
        if (normal_share(middle) < share)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Which percentile bounds the interval: shifted by how far the resamples lie to one side of the value (Efron 1987). */
static double bias_corrected(const double *values, size_t n, double value, double share)
{
    double below = 0;
    for (size_t i = 0; i < n; i++) below += values[i] < value ? 1 : values[i] == value ? 0.5 : 0;
    below = fmin(fmax(below, 0.5), (double)n - 0.5);
    return normal_share(2 * normal_point(below / (double)n) + normal_point(share));
}

/* values (n), which are sorted; out->value must be set. */
static void summarize(pd_coco_interval *out, double *values, size_t n, double level)
{
    qsort(values, n, sizeof *values, compare_doubles);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += values[i];
    out->mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (values[i] - out->mean) * (values[i] - out->mean);
    out->error = sqrt(squares / (double)(n - 1));
    out->low = percentile(values, n, bias_corrected(values, n, out->value, (1 - level) / 2));
    out->high = percentile(values, n, bias_corrected(values, n, out->value, (1 + level) / 2));
}

pd_status pd_coco_bootstrap_run(pd_coco_interval *out, const pd_coco_result *result, const pd_coco_bootstrap *how,
                                pd_pool *pool, pd_err *err)
{
    job work = {.results = {result}, .n_results = 1, .how = how};
    pd_arena *const arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    double *column;
    pd_status status = PD_OK;
    PD_TRY_DONE(run(&work, pool, arena, err));
    PD_TRY_DONE(PD_ALLOC(&column, arena, how->rounds, err));
    for (int m = 0; m < PD_COCO_METRICS; m++) {
        for (size_t i = 0; i < how->rounds; i++) column[i] = work.values[(i + 1) * PD_COCO_METRICS + (size_t)m];
        out[m].value = work.values[m];
        summarize(&out[m], column, how->rounds, how->level);
    }
done:
    pd_arena_free(arena);
    return status;
}

pd_status pd_coco_bootstrap_compare(pd_coco_difference *out, const pd_coco_result *a, const pd_coco_result *b,
                                    const pd_coco_bootstrap *how, pd_pool *pool, pd_err *err)
{
    job work = {.results = {a, b}, .n_results = 2, .how = how};
    pd_arena *const arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    double *column;
    pd_status status = PD_OK;
    PD_TRY_DONE(run(&work, pool, arena, err));
    PD_TRY_DONE(PD_ALLOC(&column, arena, how->rounds, err));
    for (int m = 0; m < PD_COCO_METRICS; m++) {
        const double *const first = work.values + m, *const second = first + PD_COCO_METRICS;
        out[m].interval.value = *second - *first;
        out[m].a_better = 0;
        for (size_t i = 0; i < how->rounds; i++) {
            const size_t at = (i + 1) * 2 * PD_COCO_METRICS;
            column[i] = second[at] - first[at];
            out[m].a_better += column[i] < 0 ? 1 : column[i] == 0 ? 0.5 : 0;
        }
        out[m].a_better /= (double)how->rounds;
        summarize(&out[m].interval, column, how->rounds, how->level);
    }
done:
    pd_arena_free(arena);
    return status;
}
