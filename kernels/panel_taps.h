/* panel_taps.h: constant kernels of a convolution, turned so that 32 output channels lie side by side, and mixed from
 * several kernels where each image has its own weights (PD-B).
 *
 *   w     (g * k, r, s, c): g kernels one behind the other, g <= PD_MIX_MAX
 *   taps  (panels, c, r * s, PD_PANEL): taps[..][o] of panel p is output channel p * PD_PANEL + o; 0 behind the last
 *
 * A single kernel is kept in float32. Kernels to mix are kept as 16-bit numbers with a scale for every 32 of them,
 * because mixing costs memory traffic: a weight is off by at most 2^-16 of the largest of its 32 (the folded PD-B
 * networks stay within 1e-4 of the reference, tests/test_paradise.c). Where all 32 are zero nothing is kept: a folded
 * 3x1 + 1x3 has 4 empty taps of 9, of a folded kernel of 64 groups most is empty. Two kernels that are not sparse lie
 * weight beside weight under one scale: then one integer instruction mixes 16 pairs, with the two gates as 16-bit
 * numbers too. Read-only while it is used: any number of threads. */
#ifndef PD_PANEL_TAPS_H
#define PD_PANEL_TAPS_H

#include "engine/shared.h"

#include <stdbool.h>
#include <stdint.h>

#define PD_PANEL 32
#define PD_TAPS_CHUNK 64 /* channels that are taken at a time */
#define PD_MIX_MAX 4

/* One of several kernels, or two of them: its rows of 32 that are not zero, in the order of taps. */
typedef struct pd_part {
    int kernel, second; /* second: -1 where there is one */
    uint16_t *present;  /* (panels, c): bit t: tap t is there */
    uint32_t *start;    /* (panels, chunks of c): index of the chunk's first row */
    float *scale;       /* (rows) */
    int16_t *value;     /* (rows, PD_PANEL), of two (rows, PD_PANEL, 2) */
} pd_part;

typedef struct pd_panel_taps {
    pd_device *device;
    int g, k, c, taps;
    float *single;            /* g = 1 */
    pd_part part[PD_MIX_MAX]; /* g > 1 */
    int parts;
} pd_panel_taps;

/* taps <= 16. */
pd_status pd_panel_taps_init(pd_panel_taps *t, pd_device *device, int g, int k, int c, int taps, pd_err *err);
void pd_panel_taps_free(pd_panel_taps *t); /* zeroed: nothing happens */

/* Bytes of the taps of a single kernel (k, r, s, c). */
static inline size_t pd_panel_taps_bytes(const int w[4])
{
    const size_t panels = ((size_t)w[0] + PD_PANEL - 1) / PD_PANEL;
    return panels * PD_PANEL * (size_t)w[1] * (size_t)w[2] * (size_t)w[3] * sizeof(float);
}

/* Takes over new kernels. */
pd_status pd_panel_taps_set(pd_panel_taps *t, const float *w, pd_err *err);

/* Makes *keep the taps of these kernels (keep->thing: a pd_panel_taps), or finds them if another plan has them already;
 * changed: they are brought up to date. pd_unshare gives them back. */
pd_status pd_panel_taps_share(pd_shared **keep, pd_device *device, int g, int k, int c, int taps, const float *w,
                              bool changed, pd_err *err);

/* A walk over the channels of one panel, from `first` (a multiple of PD_TAPS_CHUNK) on. mix: (g), NULL for a single
 * kernel. */
typedef struct pd_taps_walk {
    const pd_panel_taps *t;
    size_t panel, channel, at[PD_MIX_MAX]; /* at: row of each part */
    float factor[PD_MIX_MAX];              /* of a part's scales */
    int gates[PD_MIX_MAX];                 /* of a part of two: both as 16-bit numbers, the first one low */
} pd_taps_walk;
pd_taps_walk pd_panel_taps_begin(const pd_panel_taps *t, const float *mix, size_t panel, int first);

/* (count, taps, PD_PANEL) of the next `count` channels: the single kernel, or the sum of mix[i] * kernel i, written
 * into room (count * taps * PD_PANEL floats). Mixing needs a processor that winograd.h runs on. */
const float *pd_panel_taps_next(pd_taps_walk *walk, int count, float *room);

/* Asks for share `step` of `steps` of what a walk over these channels will read, so that it comes while something else
 * is computed. */
void pd_panel_taps_fetch(const pd_panel_taps *t, size_t panel, int first, int count, size_t step, size_t steps);

static inline size_t pd_panels(int k)
{
    return ((size_t)k + PD_PANEL - 1) / PD_PANEL;
}

#endif
