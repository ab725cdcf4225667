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
    struct pd_scored *sorted, *spare; /* the list by score */
    struct pd_sorted_fate *fates;     /* of one area, by score */
    size_t sorted_capacity, spare_capacity, fates_capacity;
    uint32_t *hits;    /* per threshold: detections seen so far, at each true positive */
    uint32_t *hit_at;  /* and its place in the sorted list */
    double *precision; /* of one threshold, at its true positives */
    size_t *need;      /* per recall threshold: true positives that reach it */
    size_t hits_capacity, hit_at_capacity, precision_capacity, need_capacity;
    size_t n_sorted;
} pd_accumulate_scratch;

void pd_accumulate_scratch_free(pd_accumulate_scratch *scratch);

/* Sorts the list by score: what pd_accumulate reads. */
pd_status pd_accumulate_sort(pd_accumulate_scratch *scratch, const pd_matched_list *list, pd_err *err);
size_t pd_accumulate_sorted_count(const pd_accumulate_scratch *scratch);
/* Index in the list of sorted place i. */
uint32_t pd_accumulate_sorted(const pd_accumulate_scratch *scratch, size_t i);

/* to_find (n_areas): objects not ignored; where it is 0, and nothing else, the outputs stay as they are (-1).
 * precision and scores (A, M, T, R), recall (A, M, T) of the category; scores may be NULL. */
pd_status pd_accumulate(pd_accumulate_scratch *scratch, const pd_accumulate_setup *setup, const pd_matched_list *list,
                        const size_t *to_find, double *precision, double *recall, double *scores, pd_err *err);

#endif
