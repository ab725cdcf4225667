/* winograd.h: 3x3, 3x1 and 1x3 convolutions of stride 1 with fewer multiplications, several of them sharing one input.
 *
 * Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks": F(4x4, 3x3). The input is cut into tiles of
 * 4 x 4 outputs that read 6 x 6 inputs; behind the transforms a convolution is 36 matrix products over the channels,
 * 36 multiplications for 16 outputs instead of 144. A 3x1 or 1x3 kernel is a 3x3 kernel whose transform is zero in 12
 * of the 36 places: 24 multiplications instead of 48. The polynomial is interpolated at 0, +-3/4, +-3/2 and infinity,
 * whose powers are exact in binary and whose rounding error is a third of that of the textbook's 0, +-1, +-2: about
 * 1e-6 of the largest output (tests/check_net_ops.c holds it to 2e-5).
 *
 *   V = B' x B         input tile (6 x 6) -> 36 places         shared by all kernels that read x
 *   U = G w G'         kernel (3 x 3) -> 36 places             the scales of G's rows are in B: fewer steps a kernel
 *   y = A' (sum_c U V) A                                       forward: (n, h, w, k) from (n, h, w, c)
 *   dx = the same with the kernels flipped and k, c exchanged; all gradients dy_j are one long sum: nothing is added
 * twice dw = G' (sum_tiles (A dy A') V) G
 *
 * Everything is computed in waves of tiles whose transforms stay in the last-level cache, and inside a wave in blocks
 * that stay in a core's own. Sums are taken in an order that depends on the shape alone: any number of threads gives
 * the same bits. Padding is half the kernel; activations (n, h, w, c), weights (k, kh, kw, c); channels are multiples
 * of 16. Nothing is kept between calls; the caller gives the scratch, 64-byte aligned. x86 with AVX-512 or AVX2 and
 * FMA; elsewhere pd_wino_add is false and callers use the compute library. */
#ifndef PD_WINOGRAD_H
#define PD_WINOGRAD_H

#include "engine/thread.h"
#include "kernels/conv_shape.h"
#include "kernels/panel_taps.h"

#include <stdbool.h>

#define PD_WINO_MAX 5 /* convolutions of one input */

/* Convolutions j < count of one input. */
typedef struct pd_wino_shape {
    int n, h, w, c;
    int count;
    struct {
        int k, kh, kw;
    } conv[PD_WINO_MAX];
} pd_wino_shape;

/* Puts a convolution into a set that begins as {0}: true if it is of this kind, has the set's input, and there is room.
 */
bool pd_wino_add(pd_wino_shape *s, const pd_conv_shape *conv);

/* Is it faster than a direct convolution at the machine's peak? An estimate in multiply-adds. */
bool pd_wino_pays(const pd_wino_shape *s);

/* What follows the convolution: y = relu?(conv + bias + residual); only where count is 1. */
typedef struct pd_wino_after {
    const float *bias;     /* (k) or NULL */
    const float *residual; /* like y, may be y itself; or NULL */
    bool relu;
} pd_wino_after;

/* y[j] = conv_j(x). after may be NULL. */
size_t pd_wino_fwd_scratch(const pd_wino_shape *s, int threads);
void pd_wino_fwd(pd_pool *pool, const pd_wino_shape *s, const float *x, const float *const *w, float *const *y,
                 const pd_wino_after *after, void *scratch);

/* The same for one convolution with constant kernels; mix as in pd_panel_taps_get, or NULL. The 36 places are made anew
 * in every run: reading four times the bytes from memory would take longer. Uses the scratch of pd_wino_fwd. */
void pd_wino_fwd_taps(pd_pool *pool, const pd_wino_shape *s, const float *x, const pd_panel_taps *taps,
                      const float *mix, float *y, const pd_wino_after *after, void *scratch);

/* dx = (add ? dx : 0) + sum_j conv_j^T(dy[j]). */
size_t pd_wino_bwd_data_scratch(const pd_wino_shape *s, int threads);
void pd_wino_bwd_data(pd_pool *pool, const pd_wino_shape *s, const float *const *w, const float *const *dy, float *dx,
                      bool add, void *scratch);

/* dw[j] = (add[j] ? dw[j] : 0) + gradient; a NULL dw[j] is left out. */
size_t pd_wino_bwd_weights_scratch(const pd_wino_shape *s, int threads);
void pd_wino_bwd_weights(pd_pool *pool, const pd_wino_shape *s, const float *x, const float *const *dy,
                         float *const *dw, const bool *add, void *scratch);

#endif
