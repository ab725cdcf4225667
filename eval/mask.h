/* mask.h: binary masks as run lengths: text, polygons, union, overlap. Private to eval/.
 *
 * Runs go down the columns, from the first column on, zeros first (a first run of length 0 where pixel 0 is set). All
 * rules are those of COCO's mask API (pycocotools 2.0.11), to the last pixel. A mask is kept as the ends of its runs:
 * ends[j] = runs[0] + .. + runs[j], so the ones are [ends[0], ends[1]), [ends[2], ends[3]), ... */
#ifndef PD_MASK_H
#define PD_MASK_H

#include "engine/arena.h"
#include "engine/json_stream.h"

typedef struct pd_mask {
    uint32_t h, w;
    uint32_t area;   /* pixels set */
    uint32_t box[4]; /* tight: x, y, w, h; all 0 where no pixel is set */
    uint32_t n;      /* runs */
    bool empty_runs; /* a run other than the first has length 0 */
    uint32_t *ends;
} pd_mask;

/* The same, but with its runs still packed as COCO's text: six bits a character from '0' on, low five of them data,
 * least first, the sixth says more follow; from the fourth number on the difference to the run two places before. */
typedef struct pd_rle_text {
    const char *text; /* not terminated; NULL: no such mask */
    uint32_t size, h, w, area;
    uint32_t box[4];
    bool empty_runs;
} pd_rle_text;

/* Buffers that reading needs; zero to begin with, one a thread. */
typedef struct pd_mask_work {
    double *xy;
    uint32_t *positions, *part, *joined;
    char *text;
    size_t xy_capacity, positions_capacity, part_capacity, joined_capacity, text_capacity;
} pd_mask_work;
void pd_mask_work_free(pd_mask_work *work);

/* Largest mask: h * w pixels. */
#define PD_MASK_PIXELS 0x7fffffffu
/* Coordinates of polygons lie within so many pixels of the origin. */
#define PD_MASK_FARTHEST 1e7

/* Reads a `segmentation`: a list of polygons for an image of h x w pixels, or {"size", "counts"}. Text counts go to
 * *text if that is given; everything else to *mask. Memory comes from the arena. *fault is NULL, or says why the value
 * cannot be a mask; false with an error in j for malformed JSON or no memory. */
bool pd_mask_read(pd_mask *mask, pd_rle_text *text, pd_js *j, double h, double w, pd_mask_work *work, pd_arena *arena,
                  const char **fault);

/* Text counts of an h x w mask: checks them and fills *out, text included (borrowed). Returns NULL, or what is wrong.
 */
const char *pd_rle_scan(pd_rle_text *out, const char *text, size_t size, uint32_t h, uint32_t w);

/* Unpacks; *mask's ends is a heap array of *capacity that grows. The text must have been scanned. */
pd_status pd_rle_unpack(pd_mask *mask, size_t *capacity, const pd_rle_text *text, pd_err *err);

/* NULL, or why a polygon of n points cannot be drawn in an image of h x w pixels. */
const char *pd_mask_check_polygon(const double *xy, size_t n, double h, double w);

/* A polygon of n points x, y (in xy) -> mask; ends as above. */
pd_status pd_mask_polygon(pd_mask *mask, size_t *capacity, const double *xy, size_t n, uint32_t h, uint32_t w,
                          pd_mask_work *work, pd_err *err);

/* Completes a mask from its ends: area, box. A mask that stops early is zeros from there on. */
void pd_mask_finish(pd_mask *mask);
/* Runs of a or b, which have the same size and reach to its last pixel; ends has room for both. Returns their number.
 */
uint32_t pd_mask_unite(uint32_t *ends, const pd_mask *a, const pd_mask *b);

/* Overlap of a detection's mask and an object's: intersection over union; over the detection's area for a crowd. 0
 * where the boxes do not overlap, -1 where the sizes differ. */
double pd_mask_overlap(const pd_mask *det, const pd_mask *object, bool crowd);
/* False where the overlap cannot reach `least`, told by areas and boxes alone. */
bool pd_mask_may_reach(const pd_rle_text *det, const pd_mask *object, bool crowd, double least);

#endif
