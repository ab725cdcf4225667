/* records.h: the records of one JSON array, read by all threads of a pool. Private to eval/.
 *
 * The text is cut into pieces at guessed record starts; each piece is read into a part of its own; afterwards the chain
 * from the first piece on proves which guesses were right (engine/json_stream.h). Parts come in file order and do not
 * depend on the number of threads. */
#ifndef PD_RECORDS_H
#define PD_RECORDS_H

#include "engine/json_stream.h"
#include "engine/thread.h"

typedef struct pd_records_reader {
    size_t part_size; /* bytes of a caller's part */
    /* Reads the record at j (before its '{') into *part, which was zero before its first record. False on failure, with
     * the error in j, or in part_err for errors that are not the text's (out of memory). */
    bool (*read)(void *part, const void *context, pd_js *j);
    const void *context;
    size_t piece;   /* bytes of text a piece; 0: a default */
    bool drop_text; /* the text is a mapped file: give its pages back once read */
} pd_records_reader;

/* j stands before the array. On success *parts (heap, n of them; free) are in file order and j is behind the array.
 * `release` is called for every part that is not handed out. */
pd_status pd_records_read(void **parts, size_t *n, pd_js *j, const pd_records_reader *reader,
                          void (*release)(void *part), pd_pool *pool, pd_err *err);

#endif
