#include "kernels/topk.h"
#include "kernels/topk_math.h"

#define BITS 11
#define BINS (1 << BITS)

/* The k-th smallest key (k from 1), and in *less how many keys are smaller than it. Eleven bits at a time from the top;
 * each pass looks only at keys that begin with the bits found so far. */
static uint32_t select_key(const float *scores, int n, int k, int *less)
{
    uint32_t found = 0, known = 0; /* known: mask of the bits in found */
    *less = 0;
    for (int shift = 32 - BITS; known != UINT32_MAX; shift = shift > BITS ? shift - BITS : 0) {
        int count[BINS] = {0};
        for (int i = 0; i < n; i++) {
            const uint32_t key = pd_score_key(scores[i]);
            if ((key & known) == found) count[key >> shift & (BINS - 1)]++;
        }
        int bin = 0;
        while (*less + count[bin] < k) *less += count[bin++];
        found |= (uint32_t)bin << shift;
        known |= (uint32_t)(BINS - 1) << shift;
        if (*less + count[bin] == k && shift > 0) { /* the whole bin belongs to the k: any key in it will do as bound */
            *less = k;
            return found | ~known;
        }
    }
    return found;
}

/* Sorts n pairs (key above, index below) by key, stably; b is a second buffer. Returns the one that holds the result.
 */
static uint64_t *sort_pairs(uint64_t *a, uint64_t *b, int n)
{
    if (n <= 64) {
        for (int i = 1; i < n; i++) {
            const uint64_t v = a[i];
            int j = i;
            for (; j > 0 && a[j - 1] > v; j--) a[j] = a[j - 1];
            a[j] = v;
        }
        return a;
    }
    for (int shift = 32; shift < 64; shift += BITS) {
        int count[BINS] = {0};
        for (int i = 0; i < n; i++) count[a[i] >> shift & (BINS - 1)]++;
        if (count[a[0] >> shift & (BINS - 1)] == n) continue;
        int sum = 0;
        for (int i = 0; i < BINS; i++) {
            const int c = count[i];
            count[i] = sum;
            sum += c;
        }
        for (int i = 0; i < n; i++) b[count[a[i] >> shift & (BINS - 1)]++] = a[i];
        uint64_t *t = a;
        a = b;
        b = t;
    }
    return a;
}

size_t pd_topk_work(int k)
{
    return 2 * (size_t)(k > 0 ? k : 0) * sizeof(uint64_t);
}

int pd_topk(int *index, const float *scores, int n, int k, void *work)
{
    if (k > n) k = n;
    if (k <= 0) return 0;
    uint64_t *pair = work;
    uint32_t bound = UINT32_MAX;
    int less = k;
    if (k < n) bound = select_key(scores, n, k, &less);
    /* all keys below the bound, and of those equal to it the first ones; or all up to the bound if these are k */
    const int all = k == n || less == k;
    int equals = k - less, count = 0;
    for (int i = 0; i < n && count < k; i++) {
        const uint32_t key = pd_score_key(scores[i]);
        if (key < bound || (key == bound && (all || equals-- > 0))) pair[count++] = (uint64_t)key << 32 | (uint32_t)i;
    }
    const uint64_t *sorted = sort_pairs(pair, pair + k, k);
    for (int i = 0; i < k; i++) index[i] = (int)(uint32_t)sorted[i];
    return k;
}
