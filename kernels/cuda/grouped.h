/* grouped.h: launchers of grouped.cu: convolutions with few channels a group (1, 2 or 4 in and 1, 2, 4 or 8 out), for
 * which libraries are slow. x (n, h, w, c), y (n, oh, ow, k), w (k, kh, kw, c / groups) float: the parameter itself. */
#ifndef PD_CUDA_GROUPED_H
#define PD_CUDA_GROUPED_H

#include "kernels/conv_shape.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* At most this many taps. */
#define PD_GROUPED_TAPS 9

bool pd_grouped_fits(const pd_conv_shape *s);
/* y_pitch: elements from one pixel of y to the next. */
int pd_grouped_fwd(const pd_conv_shape *s, pd_store store, const void *x, const float *w, void *y, int y_pitch,
                   cudaStream_t stream);
int pd_grouped_data(const pd_conv_shape *s, pd_store store, void *dx, bool add, const float *w, const void *dy,
                    int dy_pitch, cudaStream_t stream);
/* partial: pd_grouped_floats() floats. Sums in a fixed order. */
int pd_grouped_weights(const pd_conv_shape *s, pd_store store, const void *x, float *dw, bool add, const void *dy,
                       int dy_pitch, float *partial, cudaStream_t stream);
size_t pd_grouped_floats(const pd_conv_shape *s);

/* Milliseconds of the three together, timed once for a shape and kept with cuDNN's plans (grouped.c); 0 where nothing
 * is timed: offline and in the emulation. */
pd_status pd_grouped_time(double *ms, pd_cuda *device, const pd_conv_shape *s, pd_store store, pd_err *err);

#ifdef __cplusplus
}
#endif

#endif
