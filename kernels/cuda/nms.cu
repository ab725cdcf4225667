/* Suppression: order, tests of all pairs, the walk. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/nms.h"
#include "kernels/cuda/order.cuh"
#include "kernels/nms_math.h"
#include "kernels/topk_math.h"

using namespace pd;

namespace
{

const int WORD = 64, STRETCH = PD_STRETCH;

struct alignas(16) candidate {
    pd_box box; /* moved by class */
    float area;
    int label, place;
};

/* Work memory. */
struct sorted {
    uint64_t *order; /* (n, room) every STRETCH of them ascending */
    uint64_t
        *hits; /* (n, room, words): bit b of word w of a row: it hits candidate 64 w + b; read for those behind it */
    uint64_t *removed; /* (n, words) */
    candidate *of;     /* (n, room) in order */
};

size_t words_of(const pd_nms_shape *s)
{
    return ((size_t)s->room + WORD - 1) / WORD;
}

/* With work NULL: only how many bytes. */
size_t lay_out(const pd_nms_shape *s, void *work, sorted *v)
{
    const size_t all = (size_t)s->n * (size_t)s->room, words = words_of(s);
    char *const base = static_cast<char *>(work);
    size_t at = 0;
    v->order = reinterpret_cast<uint64_t *>(base);
    v->hits = reinterpret_cast<uint64_t *>(base + (at += pd_align_up(all * sizeof(uint64_t))));
    v->removed = reinterpret_cast<uint64_t *>(base + (at += pd_align_up(all * words * sizeof(uint64_t))));
    v->of = reinterpret_cast<candidate *>(base + (at += pd_align_up((size_t)s->n * words * sizeof(uint64_t))));
    return at + pd_align_up(all * sizeof(candidate));
}

__global__ void clear_list(uint64_t *__restrict__ order, size_t places, int *__restrict__ found, size_t counts)
{
    for (size_t i = first_item(); i < places; i += item_step()) order[i] = PD_NMS_NONE;
    for (size_t i = first_item(); i < counts; i += item_step()) found[i] = 0;
}

/* grid (stretches, images) */
__global__ void __launch_bounds__(PD_LIST_THREADS)
    sort_stretches(int room, const uint64_t *__restrict__ order, uint64_t *__restrict__ to)
{
    __shared__ uint64_t part[STRETCH];
    const int first = (int)blockIdx.x * STRETCH, n = room - first < STRETCH ? room - first : STRETCH;
    const int self = (int)threadIdx.x;
    order += blockIdx.y * (size_t)room + (size_t)first;
    to += blockIdx.y * (size_t)room + (size_t)first;
    for (int i = self; i < STRETCH; i += PD_LIST_THREADS) part[i] = i < n ? order[i] : PD_NMS_NONE;
    sort_stretch(part);
    for (int i = self; i < n; i += PD_LIST_THREADS) to[i] = part[i];
}

/* How many of n ascending orders are smaller than x. */
__device__ __forceinline__ int count_below(const uint64_t *order, int n, uint64_t x)
{
    int below = 0;
    while (n > 0) {
        const int half = n / 2;
        if (order[below + half] < x) {
            below += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return below;
}

/* grid (blocks over orders, images) */
__global__ void place_candidates(pd_nms_shape s, pd_nms_list list, sorted to)
{
    const size_t image = blockIdx.y, first = image * (size_t)s.room;
    const float step = pd_bits_float((uint32_t)list.found[2 * image + 1]) + 1.f;
    const uint64_t *order = to.order + first;
    for (size_t i = first_item(); i < (size_t)s.room; i += item_step()) {
        const uint64_t own = order[i];
        if (own == PD_NMS_NONE) continue;
        const int within = (int)i % STRETCH;
        int rank = within;
        for (int at = 0; at < s.room; at += STRETCH)
            if (at != (int)i - within)
                rank += count_below(order + at, s.room - at < STRETCH ? s.room - at : STRETCH, own);
        const size_t place = (uint32_t)own;
        const int label = list.label[first + place];
        const pd_box box = s.cfg.exact ? list.box[first + place] : pd_nms_moved(list.box[first + place], label, step);
        to.of[first + (size_t)rank] = candidate{box, pd_box_area(box), s.cfg.exact ? label : 0, (int)place};
    }
}

/* grid (blocks over rows, words, images) */
__global__ void __launch_bounds__(PD_THREADS)
    test_pairs(pd_nms_shape s, const int *__restrict__ found, sorted v, int words)
{
    __shared__ candidate part[WORD];
    const size_t image = blockIdx.z, first = image * (size_t)s.room;
    const int count = found[2 * image], begin = (int)blockIdx.y * WORD, self = (int)threadIdx.x;
    const int n = count - begin < WORD ? count - begin : WORD, row = (int)blockIdx.x * PD_THREADS + self;
    if (n <= 0 || row - self >= begin + n) return; /* all rows stand behind the word's candidates: never read */
    if (self < WORD) part[self] = self < n ? v.of[first + (size_t)(begin + self)] : candidate{};
    __syncthreads();
    if (row >= begin + n) return;
    const candidate own = v.of[first + (size_t)row];
    uint64_t bits = 0;
    for (int half = 0; half < WORD; half += 32) {
        unsigned hit = 0;
#pragma unroll
        for (int j = 0; j < 32; j++) {
            const candidate &c = part[half + j];
            const bool hits = pd_nms_hits(own.box, own.area, c.box, c.area, s.cfg.iou);
            hit |= (unsigned)(hits & (c.label == own.label)) << j; /* no branch */
        }
        bits |= (uint64_t)hit << half;
    }
    v.hits[(first + (size_t)row) * (size_t)words + blockIdx.y] = bits;
}

/* A block an image: 64 candidates at a time are decided by one thread, then all strike out what the kept ones hit. */
__global__ void __launch_bounds__(PD_LIST_THREADS) walk(pd_nms_shape s, const int *__restrict__ found, sorted v,
                                                        int words, int *__restrict__ keep, int *__restrict__ kept_of)
{
    const int ROWS = 8; /* whose hits a thread reads at once */
    __shared__ uint64_t among[WORD], gone;
    __shared__ int taken[WORD], kept;
    const size_t image = blockIdx.x;
    const int count = found[2 * image], self = (int)threadIdx.x;
    const uint64_t *hits = v.hits + image * (size_t)s.room * (size_t)words;
    const candidate *of = v.of + image * (size_t)s.room;
    uint64_t *removed = v.removed + image * (size_t)words;
    keep += image * (size_t)s.cfg.max_keep;
    for (int w = self; w < words; w += PD_LIST_THREADS) removed[w] = 0;
    if (self == 0) kept = 0;
    __syncthreads();
    for (int c = 0; c * WORD < count; c++) {
        const int first = c * WORD, rows = count - first < WORD ? count - first : WORD, before = kept;
        if (self < rows) among[self] = hits[(size_t)(first + self) * (size_t)words + (size_t)c];
        if (self == WORD) gone = removed[c];
        __syncthreads();
        if (self == 0) {
            uint64_t left = rows < WORD ? ~gone & (((uint64_t)1 << rows) - 1) : ~gone;
            int n = 0;
            for (; left && before + n < s.cfg.max_keep; n++) {
                const int best = __ffsll((long long)left) - 1;
                taken[n] = best;
                left &= ~(among[best] | (uint64_t)1 << best);
            }
            kept = before + n;
        }
        __syncthreads();
        const int n = kept - before, groups = (n + ROWS - 1) / ROWS;
        if (self < n) keep[before + self] = of[first + taken[self]].place;
        if (kept >= s.cfg.max_keep) break;
        const int later = (count - 1) / WORD - c; /* words */
        for (int i = self; i < later * groups; i += PD_LIST_THREADS) {
            const int r = i / later * ROWS, w = c + 1 + i % later;
            uint64_t all = 0;
#pragma unroll
            for (int k = 0; k < ROWS; k++) { /* the last one again where there are no more */
                const int row = first + taken[r + k < n ? r + k : n - 1];
                all |= hits[(size_t)row * (size_t)words + (size_t)w];
            }
            if (all) atomicOr(reinterpret_cast<unsigned long long *>(removed + w), (unsigned long long)all);
        }
        __syncthreads();
    }
    if (self == 0) kept_of[image] = kept;
}

} // namespace

size_t pd_nms_list_bytes(const pd_nms_shape *s)
{
    const size_t all = (size_t)s->n * (size_t)s->room;
    return pd_align_up(all * sizeof(uint64_t)) + pd_align_up(all * sizeof(pd_box)) + pd_align_up(all * sizeof(int)) +
           pd_align_up((size_t)s->n * 2 * sizeof(int));
}

pd_nms_list pd_nms_list_in(void *memory, const pd_nms_shape *s)
{
    const size_t all = (size_t)s->n * (size_t)s->room;
    char *at = static_cast<char *>(memory);
    pd_nms_list list;
    list.order = reinterpret_cast<uint64_t *>(at);
    list.box = reinterpret_cast<pd_box *>(at += pd_align_up(all * sizeof(uint64_t)));
    list.label = reinterpret_cast<int *>(at += pd_align_up(all * sizeof(pd_box)));
    list.found = reinterpret_cast<int *>(at + pd_align_up(all * sizeof(int)));
    return list;
}

int pd_nms_clear(const pd_nms_list *list, const pd_nms_shape *s, cudaStream_t stream)
{
    const size_t places = (size_t)s->n * (size_t)s->room, counts = 2 * (size_t)s->n;
    return launch(clear_list, blocks_for(places > counts ? places : counts), dim3(PD_THREADS), stream, list->order,
                  places, list->found, counts);
}

size_t pd_nms_bytes(const pd_nms_shape *s)
{
    sorted v;
    return lay_out(s, NULL, &v);
}

int pd_nms_fwd(const pd_nms_shape *s, const pd_nms_list *list, int *keep, int *kept, void *work, cudaStream_t stream)
{
    sorted v;
    (void)lay_out(s, work, &v);
    const int words = (int)words_of(s);
    const unsigned room = (unsigned)s->room, n = (unsigned)s->n;
    const dim3 stretches((room + STRETCH - 1) / STRETCH, n),
        pairs((room + PD_THREADS - 1) / PD_THREADS, (unsigned)words, n);
    int code = launch_sync(sort_stretches, stretches, dim3(PD_LIST_THREADS), stream, s->room,
                           (const uint64_t *)list->order, v.order);
    if (!code) code = launch(place_candidates, dim3(blocks_for(room).x, n), dim3(PD_THREADS), stream, *s, *list, v);
    if (!code) code = launch_sync(test_pairs, pairs, dim3(PD_THREADS), stream, *s, (const int *)list->found, v, words);
    if (code) return code;
    return launch_sync(walk, dim3(n), dim3(PD_LIST_THREADS), stream, *s, (const int *)list->found, v, words, keep,
                       kept);
}
