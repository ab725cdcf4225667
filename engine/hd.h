/* hd.h: one function body for the host and for CUDA devices.
 *
 * PD_HD marks per-element mathematics that a C file (gcc, clang) and a .cu file (nvcc) both compile, so that a formula
 * exists once. Keep such functions to plain floats, integers and expf/logf/sqrtf; no I/O, no float atomics. */
#ifndef PD_HD_H
#define PD_HD_H

#ifdef __CUDACC__
#define PD_HD static __host__ __device__ __forceinline__
#else
#define PD_HD static inline
#endif

#endif
