/* mask.h: binary masks as run lengths: reading, rasterising, overlap. Private to eval/.
 *
 * Runs go down the columns, from the first column on, zeros first (a first run of length 0 where pixel 0 is set). All
 * rules are COCO's mask API (pycocotools 2.0.11, maskApi.c), to the last pixel. */
#ifndef PD_MASK_H
#define PD_MASK_H

#include "engine/arena.h"
#include "engine/json_stream.h"

typedef struct pd_mask {
    uint32_t h, w;
    uint32_t *runs;
    size_t n;
} pd_mask;

/* Run lengths as COCO's text: six bits a character, differences to the run two places before. Not terminated. */
typedef struct pd_rle_text {
    const char *text;
    uint32_t size, h, w;
    uint32_t box[4]; /* tight pixel box x, y, w, h; all 0 for an empty mask */
} pd_rle_text;

#endif
