#include "eval/records.h"

#include "engine/arena.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEFAULT_PIECE ((size_t)2 << 20)

typedef struct {
    size_t start, stop; /* offsets: the first record, and where reading ended */
    size_t next;        /* the piece that starts exactly at stop, or n: the array ended there */
    pd_js j;
} piece;

typedef struct {
    const pd_records_reader *reader;
    const pd_js *source;
    piece *pieces;
    size_t n;
    char *parts;
} job;

/* Pages of [from, to) need not stay resident: they are read again from the file if anybody asks. */
static void drop_pages(const unsigned char *from, const unsigned char *to)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t a = ((uintptr_t)from + page - 1) / page * page, b = (uintptr_t)to / page * page;
    if (b > a) madvise((void *)a, b - a, MADV_DONTNEED);
}

static void read_piece(void *arg, size_t begin, size_t end, int thread)
{
    (void)end;
    (void)thread;
    const job *const work = arg;
    piece *const p = &work->pieces[begin];
    void *const part = work->parts + begin * work->reader->part_size;
    pd_js *const j = &p->j;
    size_t next = begin + 1;
    while (pd_js_item(j)) {
        pd_js_peek(j); /* to the '{' itself */
        const size_t at = pd_js_offset(j);
        while (next < work->n && work->pieces[next].start < at) next++;
        if (next < work->n && work->pieces[next].start == at) {
            p->next = next;
            break;
        }
        if (!work->reader->read(part, work->reader->context, j)) break;
    }
    p->stop = pd_js_offset(j);
    if (work->reader->drop_text) drop_pages(j->begin + p->start, j->begin + p->stop);
}

static size_t make_pieces(job *work, size_t piece_bytes)
{
    const pd_js *const j = work->source;
    const size_t size = (size_t)(j->end - j->begin), first = pd_js_offset(j);
    size_t n = 0, start = first;
    do {
        piece *const p = &work->pieces[n++];
        p->start = start;
        pd_js_begin_item(&p->j, j, start);
        start = size - start > piece_bytes ? pd_js_guess_record(j->begin, size, start + piece_bytes) : size;
    } while (start < size);
    for (size_t i = 0; i < n; i++) work->pieces[i].next = n;
    return n;
}

pd_status pd_records_read(void **parts, size_t *n, pd_js *j, const pd_records_reader *reader,
                          void (*release)(void *part), pd_pool *pool, pd_err *err)
{
    if (!pd_js_array(j)) return pd_js_error(j, err);
    const size_t piece_bytes = reader->piece ? reader->piece : DEFAULT_PIECE;
    const size_t most = (size_t)(j->end - j->at) / piece_bytes + 2;
    pd_status status = PD_OK;
    job work = {.reader = reader, .source = j};
    size_t kept = 0;
    work.pieces = calloc(most, sizeof *work.pieces);
    work.parts = calloc(most, reader->part_size);
    if (!work.pieces || !work.parts) {
        status = PD_FAIL(err, PD_ENOMEM, "%s: out of memory", j->name);
        goto done;
    }
    work.n = make_pieces(&work, piece_bytes);
    pd_parallel_each(pool, work.n, read_piece, &work);

    /* The chain from piece 0 is what the file says; parts on it move to the front, in order. */
    size_t last = 0;
    for (size_t i = 0, k = 0; i < work.n; i++) {
        char *const part = work.parts + i * reader->part_size;
        if (i != k) {
            release(part);
            continue;
        }
        if (i != kept) memcpy(work.parts + kept * reader->part_size, part, reader->part_size);
        kept++;
        last = i;
        k = work.pieces[i].next;
    }
    *j = work.pieces[last].j;
    status = pd_js_error(j, err);
done:
    if (status != PD_OK) {
        for (size_t i = 0; i < kept; i++) release(work.parts + i * reader->part_size);
        free(work.parts);
    } else {
        *parts = work.parts;
        *n = kept;
    }
    free(work.pieces);
    return status;
}
