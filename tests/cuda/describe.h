/* describe.h: what cuDNN says of the GPU that is here, in the words that check_cudnn's device is described in
 * (tests/golden/cuda/h100.json). */
#ifndef PD_TEST_DESCRIBE_H
#define PD_TEST_DESCRIBE_H

#include "engine/status.h"

/* Writes the description of the first GPU, JSON on one line, to a file. PD_EDEVICE without a GPU. */
pd_status describe_gpu(const char *path, pd_err *err);

#endif
