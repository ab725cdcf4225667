#include "tests/cuda/describe.h"

#include <cudnn.h>
#include <stdio.h>
#include <stdlib.h>

static pd_status fail(cudnnStatus_t code, const char *what, pd_err *err)
{
    return PD_FAIL(err, PD_EDEVICE, "cuDNN: %s: %s", what, cudnnGetErrorString(code));
}

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        const cudnnStatus_t code_ = (call);                                                                            \
        if (code_ != CUDNN_STATUS_SUCCESS) return fail(code_, #call, err);                                             \
    } while (0)

static pd_status write_text(const char *path, const char *text, pd_err *err)
{
    FILE *f = fopen(path, "w");
    const int written = f ? fprintf(f, "%s\n", text) : -1;
    if ((f && fclose(f)) || written < 0) return PD_FAIL(err, PD_EIO, "%s: cannot be written", path);
    return PD_OK;
}

/* The text's length is asked for first. */
static pd_status read_back(cudnnBackendDescriptor_t d, const char *path, pd_err *err)
{
    int64_t length = 0;
    TRY(cudnnBackendGetAttribute(d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &length, NULL));
    char *text = calloc((size_t)length + 1, 1);
    if (!text) return PD_FAIL(err, PD_ENOMEM, "out of memory for a description");
    const cudnnStatus_t code =
        cudnnBackendGetAttribute(d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, length, &length, text);
    const pd_status status = code == CUDNN_STATUS_SUCCESS ? write_text(path, text, err) : fail(code, "its text", err);
    free(text);
    return status;
}

static pd_status describe(cudnnHandle_t handle, cudnnBackendDescriptor_t d, const char *path, pd_err *err)
{
    TRY(cudnnBackendSetAttribute(d, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle));
    TRY(cudnnBackendFinalize(d));
    return read_back(d, path, err);
}

pd_status describe_gpu(const char *path, pd_err *err)
{
    cudnnHandle_t handle = NULL;
    cudnnBackendDescriptor_t d = NULL;
    TRY(cudnnCreate(&handle));
    const cudnnStatus_t made = cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &d);
    const pd_status status =
        made == CUDNN_STATUS_SUCCESS ? describe(handle, d, path, err) : fail(made, "a description", err);
    if (d) (void)cudnnBackendDestroyDescriptor(d);
    (void)cudnnDestroy(handle);
    return status;
}
