#include "tools/coco_output.h"

#include <string.h>

void pd_coco_print_summary(FILE *out, const pd_coco_result *r)
{
    for (int i = 0; i < r->n_stats; i++)
        if (*r->lines[i]) fprintf(out, "%s\n", r->lines[i]);
}

/* ---- tables
 * ---------------------------------------------------------------------------------------------------------- */

/* Columns on the screen that UTF-8 text takes, one a character. */
static int width_of(const char *text)
{
    int n = 0;
    for (const char *p = text; *p; p++) n += (*p & 0xc0) != 0x80;
    return n;
}

static void print_left(FILE *out, const char *text, int width)
{
    fprintf(out, "%s%*s", text, width - width_of(text), "");
}

/* The stats that the table of several files shows: the APs. */
static int ap_columns(const pd_coco_result *r)
{
    return r->type == PD_COCO_KEYPOINTS ? 5 : 6;
}

void pd_coco_print_table(FILE *out, const pd_coco_run *runs, size_t n, bool markdown)
{
    const pd_coco_result *const first = runs[0].result;
    const int columns = ap_columns(first);
    int width = 7;
    for (size_t i = 0; i < n; i++) width = width_of(runs[i].file) > width ? width_of(runs[i].file) : width;
    fprintf(out, "%s", markdown ? "| " : "");
    print_left(out, "results", width);
    for (int c = 0; c < columns; c++) fprintf(out, markdown ? " | %6s" : " %7s", first->names[c]);
    fprintf(out, markdown ? " |\n|" : "\n");
    if (markdown) {
        for (int i = 0; i < width + 2; i++) fputc('-', out);
        for (int c = 0; c < columns; c++) fprintf(out, "|-------:");
        fprintf(out, "|\n");
    }
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%s", markdown ? "| " : "");
        print_left(out, runs[i].file, width);
        for (int c = 0; c < columns; c++) fprintf(out, markdown ? " | %6.3f" : " %7.3f", runs[i].result->stats[c]);
        fprintf(out, markdown ? " |\n" : "\n");
    }
}

static const char *label_of(const pd_coco_category_ap *row, char id[PD_COCO_ID_ROOM])
{
    return *row->name ? row->name : pd_coco_id_format(id, row->id);
}

void pd_coco_print_categories(FILE *out, const pd_coco_result *r, bool markdown)
{
    static const char *const heads[] = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "objects"};
    const bool points = r->type == PD_COCO_KEYPOINTS;
    char id[PD_COCO_ID_ROOM];
    int width = 8;
    for (size_t k = 0; k < r->n_categories; k++) {
        const int w = width_of(label_of(&r->categories[k], id));
        width = w > width ? w : width;
    }
    fprintf(out, "%s", markdown ? "| " : "");
    print_left(out, "category", width);
    for (int c = 0; c < 8; c++)
        if (c != 3 || !points) fprintf(out, markdown ? " | %7s" : " %7s", heads[c]);
    fprintf(out, markdown ? " |\n|" : "\n");
    if (markdown) {
        for (int i = 0; i < width + 2; i++) fputc('-', out);
        for (int c = 0; c < 8 - points; c++) fprintf(out, "|--------:");
        fprintf(out, "|\n");
    }
    for (size_t k = 0; k < r->n_categories; k++) {
        const pd_coco_category_ap *const row = &r->categories[k];
        const double values[] = {row->ap, row->ap50, row->ap75, row->ap_small, row->ap_medium, row->ap_large, row->ar};
        fprintf(out, "%s", markdown ? "| " : "");
        print_left(out, label_of(row, id), width);
        for (int c = 0; c < 7; c++)
            if (c != 3 || !points) fprintf(out, markdown ? " | %7.3f" : " %7.3f", values[c]);
        fprintf(out, markdown ? " | %7zu |\n" : " %7zu\n", row->objects);
    }
}

/* ---- JSON
 * ------------------------------------------------------------------------------------------------------------ */

void pd_coco_put_id(pd_json_writer *w, const char *key, pd_coco_id id)
{
    if (id.kind == PD_COCO_ID_TEXT)
        pd_json_put_string(w, key, id.text);
    else if (id.kind == PD_COCO_ID_REAL)
        pd_json_put_double(w, key, id.real);
    else
        pd_json_put_int(w, key, id.whole);
}

static void put_category(pd_json_writer *w, const pd_coco_result *r, const pd_coco_category_ap *row)
{
    pd_json_begin_object(w, NULL);
    pd_coco_put_id(w, "category_id", row->id);
    pd_json_put_string(w, "name", row->name);
    pd_json_put_double(w, "AP", row->ap);
    pd_json_put_double(w, "AP50", row->ap50);
    pd_json_put_double(w, "AP75", row->ap75);
    if (r->type != PD_COCO_KEYPOINTS) pd_json_put_double(w, "APs", row->ap_small);
    pd_json_put_double(w, "APm", row->ap_medium);
    pd_json_put_double(w, "APl", row->ap_large);
    pd_json_put_double(w, "AR", row->ar);
    pd_json_put_int(w, "objects", (int64_t)row->objects);
    pd_json_put_int(w, "detections", (int64_t)row->detections);
    pd_json_end(w);
}

static void put_params(pd_json_writer *w, const pd_coco_result *r)
{
    pd_json_begin_object(w, "params");
    pd_json_put_doubles(w, "iou_thrs", r->iou_thrs, r->n_iou);
    pd_json_put_doubles(w, "recall_thrs", r->recall_thrs, r->n_recall);
    pd_json_begin_array(w, "max_dets");
    for (size_t i = 0; i < r->n_limits; i++) pd_json_put_int(w, NULL, (int64_t)r->limits[i]);
    pd_json_end(w);
    pd_json_begin_array(w, "area_rngs");
    for (size_t i = 0; i < r->n_areas; i++) {
        pd_json_begin_array(w, NULL);
        pd_json_put_double(w, NULL, r->areas[i].low);
        pd_json_put_double(w, NULL, r->areas[i].high);
        pd_json_end(w);
    }
    pd_json_end(w);
    pd_json_end(w);
}

static void put_notes(pd_json_writer *w, const pd_coco_run *run, const pd_coco_gt_notes *gt)
{
    const pd_coco_result *const r = run->result;
    pd_json_begin_object(w, "notes");
    pd_json_put_int(w, "images", (int64_t)r->images);
    pd_json_put_int(w, "objects", (int64_t)r->objects);
    pd_json_put_int(w, "detections", (int64_t)r->detections);
    pd_json_put_int(w, "annotations", (int64_t)gt->annotations);
    pd_json_put_int(w, "annotations_left_out", (int64_t)gt->unlisted);
    pd_json_put_int(w, "annotations_repeated_ids", (int64_t)gt->repeated_ids);
    pd_json_put_int(w, "annotations_id_zero", (int64_t)gt->id_zero);
    pd_json_put_int(w, "results", (int64_t)run->notes.records);
    pd_json_put_int(w, "results_unknown_category", (int64_t)run->notes.unknown_categories);
    pd_json_put_int(w, "results_unknown_image", (int64_t)run->notes.unknown_images);
    pd_json_end(w);
}

void pd_coco_put_run(pd_json_writer *w, const pd_coco_run *run, const pd_coco_gt_notes *gt_notes)
{
    const pd_coco_result *const r = run->result;
    pd_json_put_string(w, "results_file", run->file);
    pd_json_put_string(w, "iou_type", pd_coco_type_name(r->type));
    pd_json_put_doubles(w, "stats", r->stats, (size_t)r->n_stats);
    pd_json_begin_array(w, "names");
    for (int i = 0; i < r->n_stats; i++) pd_json_put_string(w, NULL, r->names[i]);
    pd_json_end(w);
    pd_json_put_double(w, "AP_max", r->ap_max);
    pd_json_begin_array(w, "summary");
    for (int i = 0; i < r->n_stats; i++)
        if (*r->lines[i]) pd_json_put_string(w, NULL, r->lines[i]);
    pd_json_end(w);
    const int64_t counts[] = {(int64_t)r->n_iou, (int64_t)r->n_recall, (int64_t)r->n_categories, (int64_t)r->n_areas,
                              (int64_t)r->n_limits};
    pd_json_put_ints(w, "counts", counts, 5);
    put_params(w, r);
    pd_json_begin_array(w, "per_category");
    for (size_t k = 0; k < r->n_categories; k++) put_category(w, r, &r->categories[k]);
    pd_json_end(w);
    put_notes(w, run, gt_notes);
}
