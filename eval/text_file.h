/* text_file.h: a text file, plain or gzip, as bytes in memory. Private to eval/. */
#ifndef PD_TEXT_FILE_H
#define PD_TEXT_FILE_H

#include "engine/file.h"

typedef struct pd_text_file {
    pd_bytes bytes;
    bool mapped; /* the bytes are the file itself, not an unpacked copy */
} pd_text_file;

/* Plain files are mapped; gzip (told by its first two bytes) is unpacked into the heap. */
pd_status pd_text_open(pd_text_file *out, const char *path, pd_err *err);
void pd_text_close(pd_text_file *file);

#endif
