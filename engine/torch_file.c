/* Reading; writing is in torch_save.c. */
#include "engine/torch_file.h"
#include "engine/file.h"
#include "engine/json.h"
#include "engine/pickle.h"
#include "engine/zip_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PICKLE_LIMIT ((size_t)256 << 20) /* bytes of the pickle in a ZIP form */
/* The number that the old form begins with. */
#define OLD_MAGIC "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
#define OLD_PROTOCOL 1001
#define SHOWN ((size_t)16) /* a dict around the state dict is listed entry by entry up to this size */

/* Element types by storage class. */
static const struct storage_type {
    const char *name;
    size_t size;
    int type; /* pd_st_type; -1: no tensor of ours */
} storage_types[] = {
    {"torch.FloatStorage", 4, PD_ST_F32}, {"torch.DoubleStorage", 8, PD_ST_F64},
    {"torch.HalfStorage", 2, PD_ST_F16},  {"torch.BFloat16Storage", 2, PD_ST_BF16},
    {"torch.LongStorage", 8, PD_ST_I64},  {"torch.IntStorage", 4, PD_ST_I32},
    {"torch.ByteStorage", 1, PD_ST_U8},   {"torch.CharStorage", 1, PD_ST_I8},
    {"torch.BoolStorage", 1, PD_ST_BOOL}, {"torch.ShortStorage", 2, -1},
    {"torch.ComplexFloatStorage", 8, -1}, {"torch.ComplexDoubleStorage", 16, -1},
};
#define N_STORAGE_TYPES (sizeof storage_types / sizeof *storage_types)

#define REBUILD "torch._utils._rebuild_tensor"
#define REBUILD_V2 "torch._utils._rebuild_tensor_v2"
#define REBUILD_PARAMETER "torch._utils._rebuild_parameter"
#define REBUILD_PARAMETER_STATE "torch._utils._rebuild_parameter_with_state"

// clang-format off
static const char *const globals[] = {
    REBUILD, REBUILD_V2, REBUILD_PARAMETER, REBUILD_PARAMETER_STATE, "torch.FloatStorage", "torch.DoubleStorage",
    "torch.HalfStorage", "torch.BFloat16Storage", "torch.LongStorage", "torch.IntStorage", "torch.ByteStorage",
    "torch.CharStorage", "torch.BoolStorage", "torch.ShortStorage", "torch.ComplexFloatStorage",
    "torch.ComplexDoubleStorage", "torch.Size", "torch.device", "torch.float32", "torch.float64", "torch.float16",
    "torch.bfloat16", "torch.int64", "torch.int32", "torch.int16", "torch.int8", "torch.uint8", "torch.bool",
    "torch.complex64", "torch.complex128", "collections.Counter", "_codecs.encode", NULL,
};
// clang-format on

/* Elements of tensors, under a key that the pickle gives. */
typedef struct storage {
    const char *key;
    size_t key_size;
    const struct storage_type *type;
    size_t elements;
    const unsigned char *data; /* NULL in a ZIP form until it is wanted */
} storage;

struct pd_torch {
    pd_arena *arena;
    const char *name;
    pd_bytes file;
    bool mapped;
    pd_zip zip;
    const char *root;  /* folder in the archive; NULL: the old form */
    storage *storages; /* sorted by key */
    size_t n_storages;
    pd_torch_tensor *tensors;
    size_t n_tensors, tensors_room;
    pd_torch_other *others;
    size_t n_others, others_room;
    char *key;
};

/* ---- storages ---- */

/* An id is ("storage", class, key, device, elements[, view]); view, of files before PyTorch 0.4: None or (key, first
 * element, elements). */
typedef struct storage_id {
    storage whole;
    size_t first, count;
} storage_id;

static bool read_count(size_t *out, const pd_pickle *v)
{
    if (v->kind != PD_PICKLE_INT || v->as.integer < 0) return false;
    *out = (size_t)v->as.integer;
    return true;
}

static bool read_id(storage_id *out, const pd_pickle *persistent)
{
    const pd_pickle *id = persistent->as.list.items[0];
    if (id->kind != PD_PICKLE_TUPLE || id->as.list.count < 5) return false;
    pd_pickle *const *part = id->as.list.items;
    storage_id s = {0};
    if (!pd_pickle_is(part[0], PD_PICKLE_TEXT, "storage") || part[1]->kind != PD_PICKLE_GLOBAL) return false;
    for (size_t i = 0; i < N_STORAGE_TYPES; i++)
        if (pd_pickle_is(part[1], PD_PICKLE_GLOBAL, storage_types[i].name)) s.whole.type = &storage_types[i];
    if (!s.whole.type || part[2]->kind != PD_PICKLE_TEXT || !read_count(&s.whole.elements, part[4])) return false;
    s.whole.key = part[2]->as.text.data;
    s.whole.key_size = part[2]->as.text.size;
    s.count = s.whole.elements;
    if (id->as.list.count > 5 && part[5]->kind != PD_PICKLE_NONE) {
        const pd_pickle *view = part[5];
        if (view->kind != PD_PICKLE_TUPLE || view->as.list.count < 3) return false;
        if (!read_count(&s.first, view->as.list.items[1]) || !read_count(&s.count, view->as.list.items[2]))
            return false;
        if (s.first > s.whole.elements || s.count > s.whole.elements - s.first) return false;
    }
    *out = s;
    return true;
}

static int by_key(const void *a, const void *b)
{
    const storage *x = a, *y = b;
    const size_t n = x->key_size < y->key_size ? x->key_size : y->key_size;
    const int order = n ? memcmp(x->key, y->key, n) : 0;
    return order ? order : (x->key_size > y->key_size) - (x->key_size < y->key_size);
}

/* One storage for every key that the pickle names. */
static pd_status collect_storages(pd_torch *f, const pd_pickle_file *pickle, pd_err *err)
{
    storage *s;
    size_t n = 0;
    PD_TRY(PD_ALLOC(&s, f->arena, pickle->n_persistents, err));
    for (size_t i = 0; i < pickle->n_persistents; i++) {
        storage_id id;
        if (!read_id(&id, pickle->persistents[i]))
            return PD_FAIL(err, PD_EFORMAT, "%s: storage %zu is described in a way that PyTorch does not write",
                           f->name, i);
        s[n++] = id.whole;
    }
    if (n) qsort(s, n, sizeof *s, by_key);
    f->storages = s;
    for (size_t i = 0; i < n; i++) {
        storage *last = f->n_storages ? &s[f->n_storages - 1] : NULL;
        if (!last || by_key(last, &s[i]) != 0)
            s[f->n_storages++] = s[i];
        else if (last->elements != s[i].elements || last->type->size != s[i].type->size)
            return PD_FAIL(err, PD_EFORMAT, "%s: storage \"%.*s\" has two sizes", f->name, (int)(last->key_size & 63),
                           last->key);
    }
    return PD_OK;
}

static storage *find_storage(const pd_torch *f, const char *key, size_t key_size)
{
    const storage want = {.key = key, .key_size = key_size};
    return f->n_storages ? bsearch(&want, f->storages, f->n_storages, sizeof want, by_key) : NULL;
}

/* The bytes of a storage in the archive. */
static pd_status load_storage(pd_torch *f, storage *s, pd_err *err)
{
    char *path;
    size_t want;
    pd_bytes data;
    if (s->data) return PD_OK;
    PD_TRY(
        pd_format(&path, f->arena, err, "%s/data/%.*s", f->root, (int)(s->key_size < 256 ? s->key_size : 256), s->key));
    const pd_zip_entry *e = pd_zip_find(&f->zip, path);
    if (!e) return PD_FAIL(err, PD_EFORMAT, "%s: %s is missing from the archive", f->name, path);
    if (!pd_mul_fits(s->elements, s->type->size, &want) || e->size != want)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s has %zu bytes, %zu elements of %zu are wanted", f->name, path, e->size,
                       s->elements, s->type->size);
    PD_TRY(pd_zip_read(&data, &f->zip, e, f->arena, err));
    s->data = data.data;
    return PD_OK;
}

/* Behind the pickles of the old form: for each key of a list, in its order, the number of elements and the bytes. */
static pd_status place_old_storages(pd_torch *f, const pd_pickle *keys, size_t at, pd_err *err)
{
    if (keys->kind != PD_PICKLE_LIST) return PD_FAIL(err, PD_EFORMAT, "%s: the list of storages is no list", f->name);
    for (size_t i = 0; i < keys->as.list.count; i++) {
        const pd_pickle *key = keys->as.list.items[i];
        storage *s = key->kind == PD_PICKLE_TEXT ? find_storage(f, key->as.text.data, key->as.text.size) : NULL;
        if (!s) return PD_FAIL(err, PD_EFORMAT, "%s: storage %zu of the file belongs to no tensor", f->name, i);
        const size_t left = f->file.size - at;
        uint64_t elements;
        size_t bytes;
        if (left < 8)
            return PD_FAIL(err, PD_EFORMAT, "%s: cut: the file ends before storage %zu of %zu", f->name, i,
                           keys->as.list.count);
        memcpy(&elements, f->file.data + at, 8);
        if (elements != s->elements)
            return PD_FAIL(err, PD_EFORMAT, "%s: storage %zu has %llu elements, %zu are wanted", f->name, i,
                           (unsigned long long)elements, s->elements);
        if (!pd_mul_fits(s->elements, s->type->size, &bytes) || bytes > left - 8)
            return PD_FAIL(err, PD_EFORMAT,
                           "%s: cut: storage %zu of %zu has %zu elements of %zu bytes, the file ends after %zu",
                           f->name, i, keys->as.list.count, s->elements, s->type->size, left - 8);
        s->data = f->file.data + at + 8;
        at += 8 + bytes;
    }
    for (size_t i = 0; i < f->n_storages; i++)
        if (!f->storages[i].data) return PD_FAIL(err, PD_EFORMAT, "%s: a tensor's storage is not in the file", f->name);
    return PD_OK;
}

/* ---- tensors ---- */

/* The call that makes a tensor: its arguments, or NULL. A parameter is a tensor in a wrapping. */
static const pd_pickle *tensor_arguments(const pd_pickle *v)
{
    for (const pd_pickle *args; (args = pd_pickle_arguments(v, REBUILD_PARAMETER, 1)) ||
                                (args = pd_pickle_arguments(v, REBUILD_PARAMETER_STATE, 1));)
        v = args->as.list.items[0];
    const pd_pickle *args = pd_pickle_arguments(v, REBUILD_V2, 4);
    return args ? args : pd_pickle_arguments(v, REBUILD, 4);
}

/* A tuple of whole numbers, or torch.Size of one. */
static bool read_dims(int64_t *out, int *count, const pd_pickle *v)
{
    const pd_pickle *size = pd_pickle_arguments(v, "torch.Size", 1);
    if (size) v = size->as.list.items[0];
    if ((v->kind != PD_PICKLE_TUPLE && v->kind != PD_PICKLE_LIST) || v->as.list.count > PD_ST_DIMS) return false;
    for (size_t i = 0; i < v->as.list.count; i++) {
        size_t n;
        if (!read_count(&n, v->as.list.items[i])) return false;
        out[i] = (int64_t)n;
    }
    *count = (int)v->as.list.count;
    return true;
}

/* Elements of a view and the last element that it reaches, counted from its first. */
static bool view_span(size_t *elements, size_t *last, const pd_view *v)
{
    size_t n = 1, reach = 0, step;
    for (int i = 0; i < v->ndim; i++)
        if (v->shape[i] == 0) n = 0;
    for (int i = 0; i < v->ndim && n; i++) {
        if (!pd_mul_fits(n, (size_t)v->shape[i], &n)) return false;
        if (!pd_mul_fits((size_t)v->shape[i] - 1, (size_t)v->stride[i], &step)) return false;
        if (__builtin_add_overflow(reach, step, &reach)) return false;
    }
    *elements = n;
    *last = reach;
    return true;
}

static pd_status read_tensor(pd_view *out, pd_torch *f, const char *name, const pd_pickle *args, pd_err *err)
{
    pd_pickle *const *a = args->as.list.items;
    pd_view v = {0};
    storage_id id;
    size_t offset, last;
    int strides;
    if (a[0]->kind != PD_PICKLE_PERSISTENT || !read_id(&id, a[0]) || !read_count(&offset, a[1]))
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: a tensor without a storage", f->name, name);
    if (!read_dims(v.shape, &v.ndim, a[2]) || !read_dims(v.stride, &strides, a[3]) || strides != v.ndim)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: shape and strides are not tuples of up to %d whole numbers from 0",
                       f->name, name, PD_ST_DIMS);
    if (id.whole.type->type < 0)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: holds elements of %s, which there is no tensor type for here", f->name,
                       name, id.whole.type->name);
    char shape[128];
    pd_st_shape_text(shape, v.ndim, v.shape);
    if (!view_span(&v.elements, &last, &v) || (v.elements && (offset >= id.count || last >= id.count - offset)))
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: shape %s at element %zu reaches beyond its storage of %zu", f->name,
                       name, shape, offset, id.count);
    if (v.elements > id.count && v.elements > PD_TORCH_EXPAND)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: shape %s repeats a storage of %zu elements; up to %zu are read so",
                       f->name, name, shape, id.count, PD_TORCH_EXPAND);
    storage *s = find_storage(f, id.whole.key, id.whole.key_size);
    if (f->root && v.elements) PD_TRY(load_storage(f, s, err));
    v.type = (pd_st_type)id.whole.type->type;
    v.bytes = v.elements * id.whole.type->size;
    v.data = v.elements ? s->data + (id.first + offset) * id.whole.type->size : s->data;
    *out = v;
    return PD_OK;
}

/* ---- the tree ---- */

/* PREFIX.KEY for a key that is text or a whole number. */
static pd_status make_name(char **out, pd_torch *f, const char *prefix, const pd_pickle *key, pd_err *err)
{
    const char *dot = *prefix ? "." : "";
    if (key->kind == PD_PICKLE_INT)
        return pd_format(out, f->arena, err, "%s%s%lld", prefix, dot, (long long)key->as.integer);
    char what[96];
    pd_pickle_describe(what, sizeof what, key);
    if (key->kind != PD_PICKLE_TEXT)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s%sa key that is %s, expected text", f->name, prefix, *prefix ? ": " : "",
                       what);
    const unsigned char *p = (const unsigned char *)key->as.text.data;
    const size_t size = key->as.text.size;
    for (size_t i = 0, step; i < size; i += step) {
        step = p[i] < ' ' || p[i] == 127 ? 0 : pd_utf8_length(p + i, size - i);
        if (!step) return PD_FAIL(err, PD_EFORMAT, "%s: key %s has a byte that is no text", f->name, what);
    }
    if (size + strlen(prefix) > 400) return PD_FAIL(err, PD_EFORMAT, "%s: key %s is too long", f->name, what);
    return pd_format(out, f->arena, err, "%s%s%.*s", prefix, dot, (int)size, key->as.text.data);
}

static pd_status add_other(pd_torch *f, const char *name, const pd_pickle *v, pd_err *err)
{
    char what[128];
    char *value;
    if (f->n_others >= PD_TORCH_TENSORS)
        return PD_FAIL(err, PD_EFORMAT, "%s: more than %zu values", f->name, PD_TORCH_TENSORS);
    pd_pickle_describe(what, sizeof what, v);
    PD_TRY(pd_strdup(&value, f->arena, tensor_arguments(v) ? "a tensor" : what, err));
    PD_TRY(pd_grow(&f->others, &f->others_room, f->n_others + 1, sizeof *f->others, err));
    f->others[f->n_others++] = (pd_torch_other){name, value};
    return PD_OK;
}

static pd_status add_tensor(pd_torch *f, const char *name, const pd_pickle *args, pd_err *err)
{
    pd_torch_tensor t = {.name = name};
    if (f->n_tensors >= PD_TORCH_TENSORS)
        return PD_FAIL(err, PD_EFORMAT, "%s: more than %zu tensors", f->name, PD_TORCH_TENSORS);
    PD_TRY(read_tensor(&t.view, f, name, args, err));
    PD_TRY(pd_grow(&f->tensors, &f->tensors_room, f->n_tensors + 1, sizeof *f->tensors, err));
    f->tensors[f->n_tensors++] = t;
    return PD_OK;
}

/* A walk through dicts inside each other. */
typedef struct level {
    const pd_pickle *dict;
    size_t next;
    const char *name;
} level;

/* Tensors of a dict and of dicts in it, and what else is in them. */
static pd_status read_state(pd_torch *f, const pd_pickle *dict, pd_err *err)
{
    level path[PD_PICKLE_DEPTH];
    size_t depth = 1, steps = 0;
    path[0] = (level){dict, 0, ""};
    while (depth) {
        level *l = &path[depth - 1];
        if (l->next == l->dict->as.list.count) {
            depth--;
            continue;
        }
        char *name;
        if (++steps > PD_TORCH_TENSORS)
            return PD_FAIL(err, PD_EFORMAT, "%s: more than %zu values", f->name, PD_TORCH_TENSORS);
        const pd_pickle *v = l->dict->as.list.items[l->next + 1], *args = tensor_arguments(v);
        PD_TRY(make_name(&name, f, l->name, l->dict->as.list.items[l->next], err));
        l->next += 2;
        if (args)
            PD_TRY(add_tensor(f, name, args, err));
        else if (v->kind != PD_PICKLE_DICT)
            PD_TRY(add_other(f, name, v, err));
        else
            path[depth++] = (level){v, 0, name}; /* the tree is no deeper than the path has room */
    }
    return PD_OK;
}

/* What stands beside the state dict, dicts of a few entries taken apart. */
static pd_status read_others(pd_torch *f, const pd_pickle *root, const pd_pickle *state, pd_err *err)
{
    level path[PD_PICKLE_DEPTH];
    size_t depth = 1, steps = 0;
    path[0] = (level){root, 0, ""};
    while (depth) {
        level *l = &path[depth - 1];
        if (l->dict == state || l->next == l->dict->as.list.count) {
            depth--;
            continue;
        }
        char *name;
        if (++steps > PD_TORCH_TENSORS)
            return PD_FAIL(err, PD_EFORMAT, "%s: more than %zu values", f->name, PD_TORCH_TENSORS);
        const pd_pickle *v = l->dict->as.list.items[l->next + 1];
        PD_TRY(make_name(&name, f, l->name, l->dict->as.list.items[l->next], err));
        l->next += 2;
        if (v->kind == PD_PICKLE_DICT && v->as.list.count <= 2 * SHOWN && v->as.list.count)
            path[depth++] = (level){v, 0, name};
        else if (v != state)
            PD_TRY(add_other(f, name, v, err));
    }
    return PD_OK;
}

/* Says what there is in place of a dict with tensors. */
#define NO_STATE(f, root, key) (no_state((f), (root), (key), err), pd_status_same(PD_EFORMAT))
static void no_state(const pd_torch *f, const pd_pickle *root, const char *key, pd_err *err)
{
    char list[320] = "nothing", what[96];
    size_t n = 0;
    const bool dict = root->kind == PD_PICKLE_DICT;
    if (!dict) pd_pickle_describe(list, sizeof list, root);
    for (size_t i = 0; dict && i < root->as.list.count && n + 110 < sizeof list; i += 2) {
        pd_pickle_describe(what, sizeof what, root->as.list.items[i]);
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", what);
    }
    if (key)
        pd_fail(err, PD_EFORMAT, "%s: has no dict at \"%s\"; it holds %s", f->name, key, list);
    else
        pd_fail(err, PD_EFORMAT,
                "%s: has no tensors where they were looked for (--key says where they are); it holds %s", f->name,
                list);
}

static pd_status find_state(const pd_pickle **out, pd_torch *f, const pd_pickle *root, const char *key, pd_err *err)
{
    static const char *const usual[] = {"state_dict", "model_state_dict", "model", "net", "weights"};
    const pd_pickle *at = root;
    if (!key) {
        for (size_t i = 0; i < sizeof usual / sizeof *usual && !key; i++) {
            const pd_pickle *v = pd_pickle_get(root, usual[i]);
            if (v && v->kind == PD_PICKLE_DICT) key = usual[i];
        }
    }
    for (const char *p = key; p && *p && at;) {
        char part[128];
        const size_t n = strcspn(p, ".");
        if (n >= sizeof part) return NO_STATE(f, root, key);
        memcpy(part, p, n);
        part[n] = '\0';
        at = pd_pickle_get(at, part);
        p += n + (p[n] == '.');
    }
    if (!at || at->kind != PD_PICKLE_DICT) return NO_STATE(f, root, key);
    PD_TRY(pd_strdup(&f->key, f->arena, key ? key : "", err));
    *out = at;
    return PD_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static pd_status no_name_twice(const pd_torch *f, pd_err *err)
{
    const char **names;
    PD_TRY(pd_alloc((void *)&names, f->arena, f->n_tensors, sizeof *names, err));
    for (size_t i = 0; i < f->n_tensors; i++) names[i] = f->tensors[i].name;
    if (f->n_tensors) qsort((void *)names, f->n_tensors, sizeof *names, by_name);
    for (size_t i = 1; i < f->n_tensors; i++)
        if (!strcmp(names[i - 1], names[i]))
            return PD_FAIL(err, PD_EFORMAT, "%s: key %s is there twice", f->name, names[i]);
    return PD_OK;
}

static pd_status read_tree(pd_torch *f, const pd_pickle *root, const pd_torch_options *o, pd_err *err)
{
    const pd_pickle *state;
    PD_TRY(find_state(&state, f, root, o->key, err));
    PD_TRY(read_state(f, state, err));
    if (!f->n_tensors) return NO_STATE(f, root, NULL);
    PD_TRY(no_name_twice(f, err));
    return read_others(f, root, state, err);
}

/* ---- the two forms ---- */

static pd_status open_zip(pd_torch *f, const pd_pickle_options *how, const pd_torch_options *o, pd_err *err)
{
    const pd_zip_entry *main = NULL;
    PD_TRY(pd_zip_open(&f->zip, f->name, f->file, f->arena, err));
    for (size_t i = 0; i < f->zip.count; i++) {
        const pd_zip_entry *e = &f->zip.entries[i];
        const char *slash = strchr(e->name, '/');
        if (!slash || strcmp(slash, "/data.pkl") != 0) continue;
        if (main) return PD_FAIL(err, PD_EFORMAT, "%s: holds both %s and %s", f->name, main->name, e->name);
        main = e;
    }
    if (!main) return PD_FAIL(err, PD_EFORMAT, "%s: a ZIP archive without data.pkl: no file of torch.save", f->name);
    if (main->size > PICKLE_LIMIT)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s has %zu bytes, more than %zu", f->name, main->name, main->size,
                       PICKLE_LIMIT);
    char *root, *order, *label;
    pd_bytes data;
    PD_TRY(pd_strndup(&root, f->arena, main->name, strlen(main->name) - strlen("/data.pkl"), err));
    f->root = root;
    PD_TRY(pd_format(&order, f->arena, err, "%s/byteorder", root));
    const pd_zip_entry *e = pd_zip_find(&f->zip, order);
    if (e) PD_TRY(pd_zip_read(&data, &f->zip, e, f->arena, err));
    if (e && (data.size != 6 || memcmp(data.data, "little", 6) != 0))
        return PD_FAIL(err, PD_EFORMAT, "%s: was written on a machine of another byte order; only little is read",
                       f->name);
    pd_pickle_file pickle;
    PD_TRY(pd_zip_read(&data, &f->zip, main, f->arena, err));
    PD_TRY(pd_format(&label, f->arena, err, "%s: %s", f->name, main->name));
    PD_TRY(pd_pickle_parse(&pickle, label, data.data, data.size, how, f->arena, err));
    PD_TRY(collect_storages(f, &pickle, err));
    return read_tree(f, pickle.root, o, err);
}

static pd_status old_pickle(pd_pickle_file *out, size_t *at, pd_torch *f, const pd_pickle_options *how, pd_err *err)
{
    PD_TRY(pd_pickle_parse(out, f->name, f->file.data + *at, f->file.size - *at, how, f->arena, err));
    *at += out->size;
    return PD_OK;
}

/* Bytes of the first pickle of the old form: a number, from protocol 4 on in a frame; 0 where it is something else. */
static size_t old_magic(pd_bytes file)
{
    const size_t n = sizeof OLD_MAGIC - 1, frame = file.size > 3 && file.data[2] == 0x95 ? 9 : 0;
    if (file.size < 2 + frame + n || file.data[0] != 0x80) return 0;
    return memcmp(file.data + 2 + frame, OLD_MAGIC, n) ? 0 : 2 + frame + n;
}

static pd_status open_old(pd_torch *f, const pd_pickle_options *how, const pd_torch_options *o, pd_err *err)
{
    size_t at = old_magic(f->file);
    pd_pickle_file protocol, system, pickle, keys;
    PD_TRY(old_pickle(&protocol, &at, f, how, err));
    if (protocol.root->kind != PD_PICKLE_INT || protocol.root->as.integer != OLD_PROTOCOL)
        return PD_FAIL(err, PD_EFORMAT, "%s: is not of torch.save's protocol %d", f->name, OLD_PROTOCOL);
    PD_TRY(old_pickle(&system, &at, f, how, err));
    const pd_pickle *little = pd_pickle_get(system.root, "little_endian");
    if (!little || little->kind != PD_PICKLE_BOOL || !little->as.truth)
        return PD_FAIL(err, PD_EFORMAT, "%s: was written on a machine of another byte order; only little is read",
                       f->name);
    PD_TRY(old_pickle(&pickle, &at, f, how, err));
    PD_TRY(old_pickle(&keys, &at, f, how, err));
    PD_TRY(collect_storages(f, &pickle, err));
    PD_TRY(place_old_storages(f, keys.root, at, err));
    return read_tree(f, pickle.root, o, err);
}

static pd_status read_file(pd_torch *f, const pd_torch_options *o, pd_err *err)
{
    const pd_pickle_options how = {.globals = globals, .skip_objects = o->skip_objects};
    const pd_bytes d = f->file;
    if (pd_zip_looks_like(d)) return open_zip(f, &how, o, err);
    if (old_magic(d)) return open_old(f, &how, o, err);
    if (d.size > 262 && !memcmp(d.data + 257, "ustar", 5))
        return PD_FAIL(
            err, PD_EFORMAT,
            "%s: the tar form of PyTorch before 0.2, or some other tar archive; save it again with a newer PyTorch",
            f->name);
    return PD_FAIL(err, PD_EFORMAT,
                   "%s: no file of torch.save: neither a ZIP archive nor the form of before PyTorch 1.6", f->name);
}

static pd_status open_bytes(pd_torch **out, const char *name, pd_bytes file, bool mapped, const pd_torch_options *o,
                            pd_err *err)
{
    char *copy;
    pd_torch *f = calloc(1, sizeof *f);
    if (f) f->arena = pd_arena_new();
    pd_status status = f && f->arena ? PD_OK : PD_FAIL(err, PD_ENOMEM, "%s: out of memory", name);
    if (status == PD_OK) status = pd_strdup(&copy, f->arena, name, err);
    if (status == PD_OK) {
        f->name = copy;
        f->file = file;
        status = read_file(f, o, err);
    }
    if (status != PD_OK) {
        pd_torch_close(f);
        return status;
    }
    f->mapped = mapped;
    *out = f;
    return PD_OK;
}

pd_status pd_torch_open(pd_torch **out, const char *path, const pd_torch_options *options, pd_err *err)
{
    pd_bytes file;
    PD_TRY(pd_file_map(&file, path, err));
    const pd_status status = open_bytes(out, path, file, true, options, err);
    if (status != PD_OK) pd_file_unmap(&file);
    return status;
}

pd_status pd_torch_parse(pd_torch **out, const char *name, const void *data, size_t size,
                         const pd_torch_options *options, pd_err *err)
{
    return open_bytes(out, name, (pd_bytes){data, size}, false, options, err);
}

bool pd_torch_looks_like(const char *path)
{
    pd_bytes file;
    if (pd_file_map(&file, path, NULL) != PD_OK) return false;
    const bool yes = pd_zip_looks_like(file) || old_magic(file) > 0;
    pd_file_unmap(&file);
    return yes;
}

void pd_torch_close(pd_torch *f)
{
    if (!f) return;
    if (f->mapped) pd_file_unmap(&f->file);
    free(f->tensors);
    free(f->others);
    pd_arena_free(f->arena);
    free(f);
}

size_t pd_torch_count(const pd_torch *f)
{
    return f->n_tensors;
}

const pd_torch_tensor *pd_torch_at(const pd_torch *f, size_t i)
{
    return &f->tensors[i];
}

size_t pd_torch_other_count(const pd_torch *f)
{
    return f->n_others;
}

const pd_torch_other *pd_torch_other_at(const pd_torch *f, size_t i)
{
    return &f->others[i];
}

const char *pd_torch_key(const pd_torch *f)
{
    return f->key;
}
