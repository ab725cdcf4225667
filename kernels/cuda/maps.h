/* maps.h: launchers of maps.cu: copies between layouts and element types, and the small passes around a convolution.
 *
 * A map is (rows, cols): pixels by channels, row r at r * pitch elements. All return a CUDA error code. */
#ifndef PD_CUDA_MAPS_H
#define PD_CUDA_MAPS_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_map {
    void *data;
    pd_store store;
    size_t rows;
    int cols, pitch;
} pd_map;

static inline pd_map pd_map_of(const void *data, pd_store store, size_t rows, int cols, int pitch)
{
    const pd_map m = {(void *)(uintptr_t)data, store, rows, cols, pitch};
    return m;
}

/* to = from (add: += from), 0 beyond from's rows and columns. */
int pd_map_copy(const pd_map *to, const pd_map *from, bool add, cudaStream_t stream);
/* y = relu?( y + residual + bias ); residual of y's store and pitch cols, bias float (cols), each NULL or there. */
int pd_map_finish(const pd_map *y, const void *residual, const float *bias, bool relu, cudaStream_t stream);
/* dy = 0 where y is not positive; both (count) in `store`. */
int pd_map_mask(void *dy, const void *y, pd_store store, size_t count, cudaStream_t stream);
/* out (cols) = or += the columns' sums, in a fixed order. partial: pd_map_sum_floats() floats. */
int pd_map_sums(const pd_map *m, float *partial, float *out, bool add, cudaStream_t stream);
size_t pd_map_sum_floats(size_t rows, int cols);

#ifdef __cplusplus
}
#endif

#endif
