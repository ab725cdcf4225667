/* simd.h: one loop, compiled for several instruction sets.
 *
 * PD_CLONES in front of a function makes gcc compile it for AVX-512, AVX2 and the baseline and choose at load time.
 * The loops inside are plain C that vectorises. Sanitizers and clang get the baseline only. Contraction is off
 * (a*b+c keeps two roundings) in all of them, so that every machine computes the same bits. */
#ifndef PD_SIMD_H
#define PD_SIMD_H

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) &&               \
    !defined(__SANITIZE_THREAD__)
#define PD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PD_CLONES
#endif

#define PD_INLINE static inline __attribute__((always_inline))

/* In front of a loop whose iterations are independent although pointers may be equal (in-place elementwise work). */
#if defined(__clang__)
#define PD_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define PD_IVDEP _Pragma("GCC ivdep")
#endif

#endif
