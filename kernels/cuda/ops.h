/* ops.h: every operation that has a CUDA implementation. To add one: its pd_kernel here and a row in plugin.c. */
#ifndef PD_CUDA_OPS_H
#define PD_CUDA_OPS_H

#include "engine/comm.h"
#include "engine/tape.h"
#include "kernels/sgd.h"

extern const pd_kernel pd_cuda_anchors;
extern const pd_kernel pd_cuda_assign;
extern const pd_kernel pd_cuda_bn_sum;
extern const pd_kernel pd_cuda_box_loss;
extern const pd_kernel pd_cuda_conv;
extern const pd_kernel pd_cuda_conv_bank;
extern const pd_kernel pd_cuda_channel_means;
extern const pd_kernel pd_cuda_dense_detections;
extern const pd_kernel pd_cuda_dense_loss;
extern const pd_kernel pd_cuda_excite;
extern const pd_kernel pd_cuda_fold_bn;
extern const pd_kernel pd_cuda_linear;
extern const pd_kernel pd_cuda_match_targets;
extern const pd_kernel pd_cuda_max_pool;
extern const pd_kernel pd_cuda_mix_conv;
extern const pd_kernel pd_cuda_mixed_loss;
extern const pd_kernel pd_cuda_normalize;
extern const pd_kernel pd_cuda_pick_deltas;
extern const pd_kernel pd_cuda_proposals;
extern const pd_kernel pd_cuda_refine;
extern const pd_kernel pd_cuda_roi_align;
extern const pd_kernel pd_cuda_roi_detections;
extern const pd_kernel pd_cuda_roi_targets;
extern const pd_kernel pd_cuda_row_softmax;
extern const pd_kernel pd_cuda_sample;
extern const pd_kernel pd_cuda_softmax_ce;
extern const pd_kernel pd_cuda_subsample;
extern const pd_kernel pd_cuda_upsample_add;

extern const pd_update_kernels pd_cuda_update;
extern const pd_comm_maker pd_cuda_comm; /* where the build found NCCL */

#endif
