#include "kernels/winograd_simd.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define FN TARGET __attribute__((always_inline)) static inline
#define UNROLL _Pragma("GCC unroll 16")
#define VEC __m256
#define LANES 8
#define MAC_ROWS 2
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define SET1 _mm256_set1_ps
#define FMA _mm256_fmadd_ps
#define ADD _mm256_add_ps
#define SUB _mm256_sub_ps
#define MUL _mm256_mul_ps
#define MAX _mm256_max_ps
#define VECI __m256i
#define SET1I _mm256_set1_epi32
#define LOADI(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define LOAD_WIDENED(p) _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define PAIRS _mm256_madd_epi16
#define TO_FLOAT _mm256_cvtepi32_ps

/* 8 x 8: pairs, fours, halves. */
FN void transpose(__m256 r[8])
{
    __m256 t[8];
    UNROLL for (int i = 0; i < 8; i += 4)
    {
        const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(r[i], r[i + 1]));
        const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(r[i], r[i + 1]));
        const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(r[i + 2], r[i + 3]));
        const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(r[i + 2], r[i + 3]));
        t[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        t[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        t[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        t[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}
#define TRANSPOSE transpose

#define PD_WINO_BODY
#include "kernels/winograd_simd.h"

const wino_isa pd_wino_avx2 = WINO_TABLE;
#endif
