/* imagenet.h: a folder of class folders as a list of images: ROOT/CLASS/FILE.
 *
 * Classes are the names of the folders in ROOT, sorted bytewise; the files of a class are sorted bytewise too, so the
 * order is the same on every machine. Any file name will do (the decoder looks at the content); names that begin with
 * a dot are left out, folders inside a class folder are not entered. */
#ifndef PD_IMAGENET_H
#define PD_IMAGENET_H

#include "engine/file.h"

#include <stdint.h>

typedef struct pd_imagenet {
    const char *root;
    int n_classes;
    char **classes; /* names; index = label */
    size_t n;       /* images, class by class */
    int *labels;    /* (n) */
    /* private: names in one block of text; use pd_imagenet_path */
    const char *text;
    const size_t *name_at;
} pd_imagenet;

/* Reads the folder; everything lives in the arena. classes NULL: the folders are the classes. Otherwise the labels are
 * positions in this list (a training set's classes, so that a validation set cannot be numbered differently): a folder
 * that is not in the list is an error, a class without a folder is not.
 * PD_EIO: no such folder. PD_EFORMAT: no class folders in it, or a class folder without files; both named. */
pd_status pd_imagenet_open(pd_imagenet *out, const char *root, char *const *classes, int n_classes, pd_arena *arena,
                           pd_err *err);

/* "ROOT/CLASS/FILE" of image i, written into buffer; PD_EINVAL if it does not fit. */
pd_status pd_imagenet_path(char *buffer, size_t size, const pd_imagenet *set, size_t i, pd_err *err);

#endif
