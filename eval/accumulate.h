/* accumulate.h: the matched detections of one category -> precision, recall and scores. Private to eval/. */
#ifndef PD_ACCUMULATE_H
#define PD_ACCUMULATE_H

#include "eval/match.h"

/* Matched detections in (image, rank) order; slots whose rank is PD_NO_RANK are holes. */
typedef struct pd_matched_list {
    const double *scores;
    const uint32_t *ranks;   /* in the cell, 0 the best */
    const pd_match *matches; /* (n, n_areas) */
    size_t n;
} pd_matched_list;
#define PD_NO_RANK UINT32_MAX

typedef struct pd_accumulate_setup {
    size_t n_thresholds, first_threshold, n_iou; /* the thresholds of this round are first_threshold .. of n_iou */
    const double *recall_thrs;
    size_t n_recall;
    size_t n_areas;
    const size_t *limits; /* ascending */
    size_t n_limits;
} pd_accumulate_setup;

typedef struct pd_accumulate_scratch {
    struct pd_scored *sorted, *spare; /* the list being sorted */
    struct pd_sorted_fate *fates;     /* of one area, by score */
    size_t sorted_capacity, spare_capacity, fates_capacity;
    uint32_t *hits;    /* per threshold: detections seen so far, at each true positive */
    uint32_t *hit_at;  /* and its place in the list */
    double *precision; /* of one threshold, at its true positives */
    size_t *need;      /* per recall threshold: true positives that reach it */
    size_t hits_capacity, hit_at_capacity, precision_capacity, need_capacity;
} pd_accumulate_scratch;

void pd_accumulate_scratch_free(pd_accumulate_scratch *scratch);

/* by_score (list->n): the detections by falling score, holes left out, as indexes into the list; *n: how many. */
pd_status pd_accumulate_sort(uint32_t *by_score, size_t *n, const pd_matched_list *list, pd_accumulate_scratch *scratch,
                             pd_err *err);

/* Area range `area` of a category whose detections pd_accumulate_sort has put in order. to_find: its objects that are
 * not ignored; where it is 0 the outputs stay as they are (-1). precision and scores (M, T, R), recall (M, T); scores
 * may be NULL. */
pd_status pd_accumulate(double *precision, double *recall, double *scores, const pd_accumulate_setup *setup,
                        const pd_matched_list *list, const uint32_t *by_score, size_t n_sorted, size_t area,
                        size_t to_find, pd_accumulate_scratch *scratch, pd_err *err);

#endif
