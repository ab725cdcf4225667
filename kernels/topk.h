/* topk.h: the k largest of n scores, sorted: descending, equal scores by ascending index.
 *
 * A radix select finds the k-th largest in up to three passes over the scores, then only the k chosen are sorted
 * (radix, stable). NaN counts as smaller than everything; -0 equals 0. */
#ifndef PD_TOPK_H
#define PD_TOPK_H

#include <stddef.h>

/* Bytes of work memory, aligned to 8, for choosing k. */
size_t pd_topk_work(int k);

/* index: (min(n, k)) positions in scores. Returns min(n, k). work: pd_topk_work(min(n, k)) bytes. */
int pd_topk(int *index, const float *scores, int n, int k, void *work);

#endif
