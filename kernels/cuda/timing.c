#include "kernels/cuda/timing.h"

#include <math.h>

#define RUNS 8

static double time_runs(pd_cuda *device, pd_status (*work)(void *arg), void *arg, int runs)
{
    cudaEvent_t begin = NULL, end = NULL;
    float ms = 0;
    bool good = cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess;
    /* zeros for all candidates; and while they are written the host gets ahead, so that short work is not timed by it
     */
    good = good &&
           (!device->tuning || cudaMemsetAsync(device->tuning, 0, device->tuning_bytes, device->stream) == cudaSuccess);
    good = good && cudaEventRecord(begin, device->stream) == cudaSuccess;
    for (int i = 0; good && i < runs; i++) good = work(arg) == PD_OK;
    good = good && cudaEventRecord(end, device->stream) == cudaSuccess && cudaEventSynchronize(end) == cudaSuccess &&
           cudaEventElapsedTime(&ms, begin, end) == cudaSuccess;
    if (begin) cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
    if (!good) (void)cudaGetLastError(); /* a failure is not the next call's */
    return good ? (double)ms / runs : HUGE_VAL;
}

double pd_cuda_time(pd_cuda *device, pd_status (*work)(void *arg), void *arg, double best)
{
    double ms = time_runs(device, work, arg, 1); /* loads kernels */
    if (ms < HUGE_VAL) ms = time_runs(device, work, arg, 1);
    return ms > 2 * best ? ms : time_runs(device, work, arg, RUNS);
}
