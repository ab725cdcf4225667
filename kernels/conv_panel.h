/* conv_panel.h: a direct convolution of one image whose kernels come from panel_taps.h, so that a mixture is used as
 * soon as it is made: in the cache, without ever being whole. For PD-B's convolutions that winograd.h does not take.
 *
 *   y (oh, ow, k) = relu?( conv(x (h, w, c), mixed kernels) + bias + residual )
 *
 * groups 1; channels are multiples of 16. Sums are taken channel by channel and tap by tap, whatever the threads. */
#ifndef PD_CONV_PANEL_H
#define PD_CONV_PANEL_H

#include "kernels/conv_shape.h"
#include "kernels/winograd.h"

/* Can it be computed here? */
bool pd_panel_conv_fits(const pd_conv_shape *s);

size_t pd_panel_conv_scratch(const pd_conv_shape *s, int threads);

/* s->n is not looked at: one image. mix may be NULL. */
void pd_panel_conv(pd_pool *pool, const pd_conv_shape *s, const float *x, const pd_panel_taps *taps, const float *mix,
                   float *y, const pd_wino_after *after, void *scratch);

#endif
