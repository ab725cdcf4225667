/* panel_taps.h: constant kernels of a convolution, turned so that 32 output channels lie side by side, and mixed from
 * several kernels where each image has its own weights (PD-B).
 *
 *   w     (g * k, r, s, c): g kernels one behind the other, g <= PD_MIX_MAX
 *   taps  (panels, c, r * s, PD_PANEL): taps[..][o] of panel p is output channel p * PD_PANEL + o; 0 behind the last
 *
 * Kernel 0 is kept in float32. The others, which a mixture only adds to it, are kept as 16-bit numbers with a scale for
 * every 16 of them, and where 32 of them are all zero (a folded 3x1 + 1x3 has 4 empty taps of 9, a folded kernel of 64
 * groups 63 empty ones of 64) nothing is kept: mixing costs memory traffic, and this is less than half of it. Such a
 * weight is off by at most 2^-16 of the largest of its 16. Read-only while it is used: any number of threads. */
#ifndef PD_PANEL_TAPS_H
#define PD_PANEL_TAPS_H

#include "engine/device.h"

#include <stdbool.h>
#include <stdint.h>

#define PD_PANEL 32
#define PD_TAPS_CHUNK 64 /* channels that are taken at a time */
#define PD_MIX_MAX 4

/* A kernel besides the first: its parts that are not zero, in the order of taps. */
typedef struct pd_part {
    uint16_t *present; /* (panels, c): bit t: tap t is there */
    uint32_t *start;   /* (panels, chunks of c): index of the chunk's first part */
    float *scale;      /* (parts, 2) */
    int16_t *value;    /* (parts, PD_PANEL) */
} pd_part;

typedef struct pd_panel_taps {
    pd_device *device;
    int g, k, c, taps;
    float *first;
    pd_part more[PD_MIX_MAX - 1];
} pd_panel_taps;

/* taps <= 16. */
pd_status pd_panel_taps_init(pd_panel_taps *t, pd_device *device, int g, int k, int c, int taps, pd_err *err);
void pd_panel_taps_free(pd_panel_taps *t); /* zeroed: nothing happens */

/* Takes over new kernels. */
pd_status pd_panel_taps_set(pd_panel_taps *t, const float *w, pd_err *err);

/* (count, taps, PD_PANEL) of channels first .. first + count - 1, `first` a multiple of PD_TAPS_CHUNK: kernel 0 itself,
 * or with mix (g) the sum of mix[i] * kernel i, written into room (PD_TAPS_CHUNK * taps * PD_PANEL floats). */
const float *pd_panel_taps_get(const pd_panel_taps *t, const float *mix, size_t panel, int first, int count,
                               float *room);

static inline size_t pd_panels(int k)
{
    return ((size_t)k + PD_PANEL - 1) / PD_PANEL;
}

#endif
