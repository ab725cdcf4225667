#include "datasets/imagenet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The index while it grows, on the heap. */
typedef struct builder {
    char *text;
    size_t *name_at;
    int *labels;
    size_t text_size, text_room, n, name_room, label_room;
} builder;

static pd_status add_image(builder *b, const char *folder, const char *file, int label, pd_err *err)
{
    const size_t size = strlen(folder) + strlen(file) + 2;
    PD_TRY(pd_grow(&b->text, &b->text_room, b->text_size + size, 1, err));
    PD_TRY(pd_grow(&b->name_at, &b->name_room, b->n + 1, sizeof *b->name_at, err));
    PD_TRY(pd_grow(&b->labels, &b->label_room, b->n + 1, sizeof *b->labels, err));
    snprintf(b->text + b->text_size, size, "%s/%s", folder, file);
    b->name_at[b->n] = b->text_size;
    b->labels[b->n++] = label;
    b->text_size += size;
    return PD_OK;
}

static pd_status add_class(builder *b, const char *root, const char *folder, int label, pd_arena *scratch, pd_err *err)
{
    char *path, **files;
    size_t count;
    pd_arena_reset(scratch);
    PD_TRY(pd_path_join(&path, root, folder, scratch, err));
    PD_TRY(pd_list_dir(&files, &count, path, 'f', scratch, err));
    const size_t before = b->n;
    for (size_t i = 0; i < count; i++)
        if (files[i][0] != '.') PD_TRY(add_image(b, folder, files[i], label, err));
    if (b->n == before)
        return PD_FAIL(err, PD_EFORMAT, "%s: no files in this class folder; expected images, or no folder", path);
    return PD_OK;
}

static int find_class(char *const *classes, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(classes[i], name)) return i;
    return -1;
}

/* Moves the arrays into the arena. */
static pd_status finish(pd_imagenet *set, const builder *b, pd_arena *arena, pd_err *err)
{
    char *text;
    size_t *name_at;
    int *labels;
    PD_TRY(PD_ALLOC(&text, arena, b->text_size, err));
    PD_TRY(PD_ALLOC(&name_at, arena, b->n, err));
    PD_TRY(PD_ALLOC(&labels, arena, b->n, err));
    memcpy(text, b->text, b->text_size);
    memcpy(name_at, b->name_at, b->n * sizeof *name_at);
    memcpy(labels, b->labels, b->n * sizeof *labels);
    set->text = text;
    set->name_at = name_at;
    set->labels = labels;
    set->n = b->n;
    return PD_OK;
}

pd_status pd_imagenet_open(pd_imagenet *out, const char *root, char *const *classes, int n_classes, pd_arena *arena,
                           pd_err *err)
{
    pd_imagenet set = {0};
    builder b = {0};
    pd_arena *scratch = NULL;
    char **folders = NULL, *root_copy = NULL;
    size_t listed = 0;
    int count = 0;
    pd_status status = PD_OK;
    PD_TRY_DONE(pd_list_dir(&folders, &listed, root, 'd', arena, err));
    for (size_t i = 0; i < listed; i++)
        if (folders[i][0] != '.') folders[count++] = folders[i];
    if (count == 0) {
        status = PD_FAIL(err, PD_EFORMAT, "%s: no class folders in it; expected %s/CLASS/IMAGE", root, root);
        goto done;
    }
    scratch = pd_arena_new();
    if (!scratch) {
        status = PD_FAIL(err, PD_ENOMEM, "%s: out of memory", root);
        goto done;
    }
    for (int i = 0; i < count; i++) {
        const int label = classes ? find_class(classes, n_classes, folders[i]) : i;
        if (label < 0) {
            status = PD_FAIL(err, PD_EFORMAT, "%s/%s: not one of the %d classes of the training set", root, folders[i],
                             n_classes);
            goto done;
        }
        PD_TRY_DONE(add_class(&b, root, folders[i], label, scratch, err));
    }
    PD_TRY_DONE(pd_strdup(&root_copy, arena, root, err));
    set.root = root_copy;
    set.n_classes = classes ? n_classes : count;
    PD_TRY_DONE(PD_ALLOC(&set.classes, arena, (size_t)set.n_classes, err));
    for (int i = 0; i < set.n_classes; i++)
        PD_TRY_DONE(pd_strdup(&set.classes[i], arena, classes ? classes[i] : folders[i], err));
    PD_TRY_DONE(finish(&set, &b, arena, err));
    *out = set;
done:
    free(b.text);
    free(b.name_at);
    free(b.labels);
    pd_arena_free(scratch);
    return status;
}

pd_status pd_imagenet_path(char *buffer, size_t size, const pd_imagenet *set, size_t i, pd_err *err)
{
    const int n = snprintf(buffer, size, "%s/%s", set->root, set->text + set->name_at[i]);
    if (n < 0 || (size_t)n >= size)
        return PD_FAIL(err, PD_EINVAL, "%s/%s: the path is longer than %zu bytes", set->root,
                       set->text + set->name_at[i], size - 1);
    return PD_OK;
}
