#include "eval/accumulate.h"

#include <stdlib.h>

typedef struct pd_scored {
    uint64_t key;
    uint32_t index;
} scored;

typedef struct pd_sorted_fate {
    pd_match fate;
    uint32_t rank, at;
} sorted_fate;

void pd_accumulate_scratch_free(pd_accumulate_scratch *s)
{
    free(s->sorted);
    free(s->spare);
    free(s->fates);
    free(s->hits);
    free(s->hit_at);
    free(s->precision);
    free(s->need);
}

/* ---- sorting ---- */

/* Stable, by key: insertion for short lists, else radix, 11 bits a pass; passes where all keys agree are left out,
 * which for scores that were single precision is half of them. */
#define RADIX_BITS 11
#define RADIX (1u << RADIX_BITS)
#define PASSES 6

static void insertion_sort(scored *list, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const scored x = list[i];
        size_t at = i;
        for (; at > 0 && list[at - 1].key > x.key; at--) list[at] = list[at - 1];
        list[at] = x;
    }
}

static scored *radix_sort(scored *list, scored *spare, size_t n)
{
    uint32_t count[PASSES][RADIX];
    memset(count, 0, sizeof count);
    for (size_t i = 0; i < n; i++)
        for (int p = 0; p < PASSES; p++) count[p][list[i].key >> (p * RADIX_BITS) & (RADIX - 1)]++;
    for (int p = 0; p < PASSES; p++) {
        const int shift = p * RADIX_BITS;
        if (count[p][list[0].key >> shift & (RADIX - 1)] == n) continue;
        uint32_t at = 0;
        for (size_t d = 0; d < RADIX; d++) {
            const uint32_t here = count[p][d];
            count[p][d] = at;
            at += here;
        }
        for (size_t i = 0; i < n; i++) spare[count[p][list[i].key >> shift & (RADIX - 1)]++] = list[i];
        scored *const swap = list;
        list = spare;
        spare = swap;
    }
    return list;
}

pd_status pd_accumulate_sort(uint32_t *by_score, size_t *n, const pd_matched_list *list, pd_accumulate_scratch *s,
                             pd_err *err)
{
    PD_TRY(pd_grow(&s->sorted, &s->sorted_capacity, list->n + 1, sizeof *s->sorted, err));
    PD_TRY(pd_grow(&s->spare, &s->spare_capacity, list->n + 1, sizeof *s->spare, err));
    size_t count = 0;
    for (size_t i = 0; i < list->n; i++)
        if (list->ranks[i] != PD_NO_RANK) s->sorted[count++] = (scored){pd_score_key(list->scores[i]), (uint32_t)i};
    const scored *sorted = s->sorted;
    if (count < 200)
        insertion_sort(s->sorted, count);
    else
        sorted = radix_sort(s->sorted, s->spare, count);
    for (size_t i = 0; i < count; i++) by_score[i] = sorted[i].index;
    *n = count;
    return PD_OK;
}

/* ---- one area range and limit ---- */

/* The sorted list without what is ignored at every threshold in this area. Returns its length; *most: its highest rank.
 */
static size_t list_fates(sorted_fate *fates, const pd_accumulate_setup *setup, const pd_matched_list *list,
                         const uint32_t *by_score, size_t n_sorted, size_t area, uint32_t *most)
{
    const size_t T = setup->n_thresholds;
    const uint32_t all = T < 32 ? (1u << T) - 1 : UINT32_MAX;
    size_t n = 0;
    *most = 0;
    for (size_t i = 0; i < n_sorted; i++) {
        const uint32_t at = by_score[i];
        const pd_match fate = list->matches[at * setup->n_areas + area];
        fates[n] = (sorted_fate){fate, list->ranks[at], at};
        n += fate.ignored != all;
        *most = fate.ignored != all && list->ranks[at] > *most ? list->ranks[at] : *most;
    }
    return n;
}

/* Walks the list and writes down, for each threshold, where its true positives are: hits[t][k] is how many detections
 * that are not ignored there were up to true positive k, that one included. Precision can only rise at a true positive,
 * so no other place matters. */
static void find_hits(const pd_accumulate_scratch *s, size_t n_fates, size_t n_thresholds, size_t limit, size_t room,
                      uint32_t *n_hits)
{
    uint32_t ignored[PD_MATCH_THRESHOLDS] = {0}, seen = 0;
    memset(n_hits, 0, n_thresholds * sizeof *n_hits);
    for (size_t i = 0; i < n_fates; i++) {
        const sorted_fate *const f = &s->fates[i];
        if (f->rank >= limit) continue;
        seen++;
        for (uint32_t bits = f->fate.ignored; bits; bits &= bits - 1) ignored[__builtin_ctz(bits)]++;
        for (uint32_t bits = f->fate.matched & ~f->fate.ignored; bits; bits &= bits - 1) {
            const size_t t = (size_t)__builtin_ctz(bits), k = t * room + n_hits[t]++;
            s->hits[k] = seen - ignored[t];
            s->hit_at[k] = f->at;
        }
    }
}

/* Reads precision and score off at the recalls. need[r]: the true positive (from 1) whose recall reaches threshold r.
 */
static void read_off(const pd_accumulate_scratch *s, const pd_accumulate_setup *setup, const pd_matched_list *list,
                     const uint32_t *hits, const uint32_t *hit_at, size_t n_hits, uint32_t first, double *precision,
                     double *scores)
{
    double *const best = s->precision;
    for (size_t k = n_hits; k-- > 0;) {
        best[k] = (double)(k + 1) / ((double)hits[k] + 0x1p-52);
        if (k + 1 < n_hits && best[k + 1] > best[k]) best[k] = best[k + 1];
    }
    size_t r = 0;
    for (; r < setup->n_recall; r++) {
        const size_t need = s->need[r];
        if (need > n_hits || first == UINT32_MAX) break;
        precision[r] = need ? best[need - 1] : n_hits ? best[0] : 0;
        if (scores) scores[r] = list->scores[need ? hit_at[need - 1] : first];
    }
    for (; r < setup->n_recall; r++) {
        precision[r] = 0;
        if (scores) scores[r] = 0;
    }
}

/* need[r]: how many of n objects must be found for a recall >= threshold r; 0 where the first detection will do. */
static void find_needs(size_t *need, const double *thresholds, size_t n_thresholds, size_t n)
{
    for (size_t r = 0; r < n_thresholds; r++) {
        const double threshold = thresholds[r];
        size_t k = 0;
        if (threshold > 0) {
            k = threshold >= 2 ? n : (size_t)(threshold * (double)n);
            if (k > n) k = n;
            while (k > 0 && (double)(k - 1) / (double)n >= threshold) k--;
            while (k <= n && (double)k / (double)n < threshold) k++;
        }
        need[r] = k;
    }
}

pd_status pd_accumulate(double *precision, double *recall, double *scores, const pd_accumulate_setup *setup,
                        const pd_matched_list *list, const uint32_t *by_score, size_t n_sorted, size_t area,
                        size_t to_find, pd_accumulate_scratch *s, pd_err *err)
{
    if (to_find == 0) return PD_OK;
    const size_t T = setup->n_thresholds, R = setup->n_recall, room = to_find < n_sorted ? to_find : n_sorted;
    PD_TRY(pd_grow(&s->need, &s->need_capacity, R, sizeof *s->need, err));
    PD_TRY(pd_grow(&s->fates, &s->fates_capacity, n_sorted + 1, sizeof *s->fates, err));
    PD_TRY(pd_grow(&s->hits, &s->hits_capacity, room * T + 1, sizeof *s->hits, err));
    PD_TRY(pd_grow(&s->hit_at, &s->hit_at_capacity, room * T + 1, sizeof *s->hit_at, err));
    PD_TRY(pd_grow(&s->precision, &s->precision_capacity, room + 1, sizeof *s->precision, err));
    find_needs(s->need, setup->recall_thrs, R, to_find);
    /* The best detection of all is the best of its image, so it is within every limit. */
    const uint32_t first = n_sorted ? by_score[0] : UINT32_MAX;
    uint32_t most;
    const size_t n_fates = list_fates(s->fates, setup, list, by_score, n_sorted, area, &most);
    for (size_t m = 0; m < setup->n_limits; m++) {
        const size_t base = m * setup->n_iou + setup->first_threshold, before = base - setup->n_iou;
        if (m > 0 && most < setup->limits[m - 1]) { /* the limit before kept everything */
            memcpy(recall + base, recall + before, T * sizeof *recall);
            memcpy(precision + base * R, precision + before * R, T * R * sizeof *precision);
            if (scores) memcpy(scores + base * R, scores + before * R, T * R * sizeof *scores);
            continue;
        }
        uint32_t n_hits[PD_MATCH_THRESHOLDS];
        find_hits(s, n_fates, T, setup->limits[m], room, n_hits);
        for (size_t t = 0; t < T; t++) {
            recall[base + t] = (double)n_hits[t] / (double)to_find;
            read_off(s, setup, list, s->hits + t * room, s->hit_at + t * room, n_hits[t], first,
                     precision + (base + t) * R, scores ? scores + (base + t) * R : NULL);
        }
    }
    return PD_OK;
}
