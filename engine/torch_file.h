/* torch_file.h: files of torch.save: the tensors of a state dict, and what else the file says.
 *
 * Read are the ZIP form (PyTorch 1.6 and later) and the form before it (0.2 to 1.5: pickles one after another, the
 * storages' bytes behind them), whatever the file's name: .pth, .pt, .pth.tar, .th, .bin. The pickles are read as plain
 * data (pickle.h). Functions and classes that may be named: torch._utils._rebuild_tensor, _rebuild_tensor_v2,
 * _rebuild_parameter and _rebuild_parameter_with_state, the storages, torch.Size, torch.device, dtypes, OrderedDict,
 * Counter, and _codecs.encode (bytes). Anything else is an error that names it, or, with skip_objects, is passed over.
 *
 * Tensors are views: shape and strides over a storage in the mapped file, which may be shared. Every offset, stride and
 * size is held against the storage before it is used. A view that repeats elements (stride 0) may have PD_TORCH_EXPAND
 * elements, no more than its storage otherwise.
 *
 * The state dict is the dict at `key` ("model", "ema.state_dict"); without a key, the one under "state_dict",
 * "model_state_dict", "model", "net" or "weights", else the whole file. Dicts inside it add "NAME." to their keys.
 * What else there is, in it or around it, is listed as `others`.
 *
 * Writing makes a ZIP form that torch.load(weights_only=True) reads.
 *
 * Threads: an open file may be read by many. */
#ifndef PD_TORCH_FILE_H
#define PD_TORCH_FILE_H

#include "engine/safetensors.h"

#define PD_TORCH_EXPAND ((size_t)1 << 24)
#define PD_TORCH_TENSORS ((size_t)1 << 20) /* most tensors and other values that are listed */

/* A tensor as a view of memory. A safetensors tensor is one too. */
typedef struct pd_view {
    pd_st_type type;
    int ndim;
    int64_t shape[PD_ST_DIMS], stride[PD_ST_DIMS]; /* strides in elements */
    size_t elements, bytes;
    const unsigned char *data; /* the first element; aligned to nothing */
} pd_view;

typedef struct pd_torch_tensor {
    const char *name; /* the key: "module.conv1.weight"; UTF-8 without control characters */
    pd_view view;
} pd_torch_tensor;

typedef struct pd_torch_other {
    const char *name, *value; /* "epoch", "90"; "optimizer", "a dict of 2"; "meta.mmdet_version", "\"1.0rc1\"" */
} pd_torch_other;

typedef struct pd_torch_options {
    const char *key;   /* where the state dict is; NULL: looked for */
    bool skip_objects; /* objects that are no tensors and no plain data are passed over */
} pd_torch_options;

typedef struct pd_torch pd_torch;

/* Whether the file begins as torch.save's do (in either form); false where it cannot be read. */
bool pd_torch_looks_like(const char *path);

pd_status pd_torch_open(pd_torch **out, const char *path, const pd_torch_options *options, pd_err *err);
/* The same over bytes in memory, which are kept, not copied; `name` stands in errors. */
pd_status pd_torch_parse(pd_torch **out, const char *name, const void *data, size_t size,
                         const pd_torch_options *options, pd_err *err);
void pd_torch_close(pd_torch *file); /* NULL allowed; tensors and strings of it are gone */

/* Tensors and others in the file's order. */
size_t pd_torch_count(const pd_torch *file);
const pd_torch_tensor *pd_torch_at(const pd_torch *file, size_t i);
size_t pd_torch_other_count(const pd_torch *file);
const pd_torch_other *pd_torch_other_at(const pd_torch *file, size_t i);
/* Where the state dict was found: "state_dict"; "" for the whole file. */
const char *pd_torch_key(const pd_torch *file);

/* A tensor of a safetensors file as a view. */
pd_view pd_view_of(const pd_st_tensor *tensor);
/* Rows [first, first + count) of the outermost dimension. */
pd_view pd_view_rows(const pd_view *view, int64_t first, int64_t count);

/* Hands the elements in row-major order to `put`, in pieces. */
typedef void (*pd_view_put)(void *arg, const void *data, size_t bytes);
void pd_view_walk(const pd_view *view, pd_view_put put, void *arg);

/* ---- writing ---- */

/* A tensor is up to two views, one behind the other along the outermost dimension. */
typedef struct pd_torch_item {
    const char *name;
    int ndim;
    int64_t shape[PD_ST_DIMS];
    pd_view parts[2];
    int n_parts;
} pd_torch_item;

/* Writes the items as an ordered dict, in this order; with `key` as the entry `key` of a dict, whose other entries are
 * the texts texts[0]: texts[1], ... (ended by NULL; may be NULL). */
pd_status pd_torch_save(const char *path, const pd_torch_item *items, size_t count, const char *key,
                        const char *const *texts, pd_err *err);

#endif
