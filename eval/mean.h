/* mean.h: the mean of many doubles with numpy's rounding. Private to eval/.
 *
 * numpy 1.24 on x86-64: blocks of 8192 values are summed pairwise (eight running sums up to 128 values, halves above)
 * and the blocks' sums are added from left to right. (numpy 2 sums a whole list pairwise: of more than 8192 values its
 * last bit may differ.) */
#ifndef PD_MEAN_H
#define PD_MEAN_H

#include <stddef.h>

#define PD_MEAN_BLOCK 8192

typedef struct pd_mean {
    double block[PD_MEAN_BLOCK];
    size_t held; /* values in block */
    size_t count;
    double total;
} pd_mean;

void pd_mean_begin(pd_mean *m);
/* Takes a value; -1 and below ("nothing to find") are passed over. */
void pd_mean_add(pd_mean *m, double value);
/* The mean, or -1 of no values. */
double pd_mean_end(pd_mean *m);

/* numpy's sum of n values in one block: pairwise as above. */
double pd_pairwise_sum(const double *values, size_t n);

#endif
