/* ranks.h: a training program as one of several processes that train together (engine/comm.h). With the comm of a
 * process that is alone, NULL, all of it comes down to what a single process does anyway. */
#ifndef PD_RANKS_H
#define PD_RANKS_H

#include "engine/comm.h"
#include "engine/device.h"

/* Opens this process's device and its collectives. "cuda" and "auto" mean the GPU of the local rank; the only one that
 * a process sees is its own whatever its rank (srun --gpus-per-task). All ranks must come to the same kind of device.
 */
pd_status pd_ranks_device(pd_device **out, pd_comm *comm, const char *name, int threads, pd_err *err);

/* Sets the precision that the command line asks for, else the configuration's, else the device's own (each NULL: says
 * nothing), and says what is computed on: "cuda:0 (NVIDIA H100 80GB HBM3), bf16". */
pd_status pd_ranks_precision(char text[512], pd_device *device, const char *asked, const char *configured, pd_err *err);

/* A process that is silent for `seconds` ends all, with a line on standard error that names it. */
pd_status pd_ranks_watch(pd_comm *comm, double seconds, pd_err *err);

/* An even share of `total` things that every process gets: PD_EINVAL names the key where there is none. */
pd_status pd_ranks_share(int *out, const pd_comm *comm, int total, const char *key, pd_err *err);

/* "4 processes on 2 machines, 16 threads each"; "" alone. */
const char *pd_ranks_text(char text[96], const pd_comm *comm, const pd_device *device);

/* Before this process tells why it failed: says which it is. Ranks but the first wait a moment: what all find, rank 0
 * tells. */
void pd_ranks_blame(const pd_comm *comm, pd_err *err);

#endif
