/* Suppression: order, tests of all pairs, the walk. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/nms.h"
#include "kernels/nms_math.h"
#include "kernels/topk_math.h"

using namespace pd;

namespace
{

const int WORD = 64;

/* Work memory, candidates in order. */
struct sorted {
    uint64_t *hits; /* (n, words, room): bit b of word w of a row: it hits candidate 64 w + b, which stands behind it */
    uint64_t *removed; /* (n, words) */
    pd_box *box;       /* (n, room) moved by class */
    float *area;
    int *label, *place;
};

size_t words_of(const pd_nms_shape *s)
{
    return ((size_t)s->room + WORD - 1) / WORD;
}

sorted lay_out(const pd_nms_shape *s, void *work)
{
    const size_t all = (size_t)s->n * (size_t)s->room;
    char *at = static_cast<char *>(work);
    sorted v;
    v.hits = reinterpret_cast<uint64_t *>(at);
    v.removed = reinterpret_cast<uint64_t *>(at += pd_align_up(all * words_of(s) * sizeof(uint64_t)));
    v.box = reinterpret_cast<pd_box *>(at += pd_align_up((size_t)s->n * words_of(s) * sizeof(uint64_t)));
    v.area = reinterpret_cast<float *>(at += pd_align_up(all * sizeof(pd_box)));
    v.label = reinterpret_cast<int *>(at += pd_align_up(all * sizeof(float)));
    v.place = reinterpret_cast<int *>(at + pd_align_up(all * sizeof(int)));
    return v;
}

__global__ void clear_list(uint64_t *__restrict__ order, size_t places, int *__restrict__ found, size_t counts)
{
    for (size_t i = first_item(); i < places; i += item_step()) order[i] = PD_NMS_NONE;
    for (size_t i = first_item(); i < counts; i += item_step()) found[i] = 0;
}

/* grid (blocks over places, images) */
__global__ void sort_candidates(pd_nms_shape s, pd_nms_list list, sorted to)
{
    const size_t image = blockIdx.y, first = image * (size_t)s.room;
    const float step = pd_bits_float((uint32_t)list.found[2 * image + 1]) + 1.f;
    const uint64_t *order = list.order + first;
    for (size_t i = first_item(); i < (size_t)s.room; i += item_step()) {
        const uint64_t own = order[i];
        if (own == PD_NMS_NONE) continue;
        size_t rank = first;
        for (int j = 0; j < s.room; j++) rank += order[j] < own;
        const int label = list.label[first + i];
        const pd_box box = s.cfg.exact ? list.box[first + i] : pd_nms_moved(list.box[first + i], label, step);
        to.box[rank] = box;
        to.area[rank] = pd_box_area(box);
        to.label[rank] = s.cfg.exact ? label : 0;
        to.place[rank] = (int)i;
    }
}

/* grid (blocks over words x rows, images): neighbouring threads have neighbouring rows. */
__global__ void test_pairs(pd_nms_shape s, const int *__restrict__ found, sorted v, int words)
{
    const size_t image = blockIdx.y, first = image * (size_t)s.room;
    const int count = found[2 * image];
    uint64_t *hits = v.hits + first * (size_t)words;
    for (size_t item = first_item(); item < (size_t)s.room * (size_t)words; item += item_step()) {
        const int word = (int)(item / (unsigned)s.room), row = (int)(item % (unsigned)s.room);
        const int last = (word + 1) * WORD < count ? (word + 1) * WORD : count;
        if (row >= last) continue; /* nothing behind it: never read */
        const pd_box box = v.box[first + row];
        const float area = v.area[first + row];
        const int label = v.label[first + row];
        uint64_t bits = 0;
        for (int j = word * WORD > row ? word * WORD : row + 1; j < last; j++)
            if (v.label[first + j] == label && pd_nms_hits(box, area, v.box[first + j], v.area[first + j], s.cfg.iou))
                bits |= (uint64_t)1 << (j - word * WORD);
        hits[item] = bits;
    }
}

/* A block an image: 64 candidates at a time are decided by one thread, then all strike out what the kept ones hit. */
__global__ void __launch_bounds__(PD_THREADS) walk(pd_nms_shape s, const int *__restrict__ found, sorted v, int words,
                                                   int *__restrict__ keep, int *__restrict__ kept_of)
{
    __shared__ uint64_t among[WORD], chosen;
    __shared__ int kept;
    const size_t image = blockIdx.x;
    const int count = found[2 * image], self = (int)threadIdx.x;
    const uint64_t *hits = v.hits + image * (size_t)s.room * (size_t)words;
    const int *place = v.place + image * (size_t)s.room;
    uint64_t *removed = v.removed + image * (size_t)words;
    keep += image * (size_t)s.cfg.max_keep;
    for (int w = self; w < words; w += PD_THREADS) removed[w] = 0;
    if (self == 0) kept = 0;
    __syncthreads();
    for (int c = 0; c * WORD < count; c++) {
        const int first = c * WORD, rows = count - first < WORD ? count - first : WORD;
        if (self < rows) among[self] = hits[(size_t)c * (size_t)s.room + (size_t)(first + self)];
        __syncthreads();
        if (self == 0) {
            uint64_t gone = removed[c];
            chosen = 0;
            for (int b = 0; b < rows && kept < s.cfg.max_keep; b++) {
                if (gone >> b & 1) continue;
                chosen |= (uint64_t)1 << b;
                gone |= among[b];
                keep[kept++] = place[first + b];
            }
        }
        __syncthreads();
        if (kept >= s.cfg.max_keep) break;
        for (int w = c + 1 + self; w * WORD < count; w += PD_THREADS) {
            uint64_t all = removed[w];
            for (int b = 0; b < rows; b++)
                if (chosen >> b & 1) all |= hits[(size_t)w * (size_t)s.room + (size_t)(first + b)];
            removed[w] = all;
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
    const size_t all = (size_t)s->n * (size_t)s->room, words = words_of(s);
    return pd_align_up(all * words * sizeof(uint64_t)) + pd_align_up((size_t)s->n * words * sizeof(uint64_t)) +
           pd_align_up(all * sizeof(pd_box)) + pd_align_up(all * sizeof(float)) + 2 * pd_align_up(all * sizeof(int));
}

int pd_nms_fwd(const pd_nms_shape *s, const pd_nms_list *list, int *keep, int *kept, void *work, cudaStream_t stream)
{
    const sorted v = lay_out(s, work);
    const int words = (int)words_of(s);
    const dim3 places(blocks_for((size_t)s->room).x, (unsigned)s->n);
    const dim3 pairs(blocks_for((size_t)s->room * (size_t)words).x, (unsigned)s->n);
    int code = launch(sort_candidates, places, dim3(PD_THREADS), stream, *s, *list, v);
    if (!code) code = launch(test_pairs, pairs, dim3(PD_THREADS), stream, *s, (const int *)list->found, v, words);
    if (code) return code;
    return launch_sync(walk, dim3((unsigned)s->n), dim3(PD_THREADS), stream, *s, (const int *)list->found, v, words,
                       keep, kept);
}
