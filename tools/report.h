/* report.h: report.html: a run on one page that needs nothing else: no network, no other file.
 *
 * Charts are inline SVG drawn here; hovering shows values by a few lines of inline JavaScript; pictures are embedded.
 * The page follows the reader's light or dark setting and fits a telephone. */
#ifndef PD_REPORT_H
#define PD_REPORT_H

#include "tools/chart.h"

typedef struct pd_report_table {
    const char *title;
    const char *const *columns;
    size_t n_columns;
    const char *const *cells; /* row by row, n_rows * n_columns; what reads as a number is set flush right */
    size_t n_rows;
} pd_report_table;

typedef struct pd_report_image {
    const char *path;    /* a JPEG or PNG file, embedded */
    const char *caption; /* NULL allowed */
} pd_report_image;

typedef struct pd_report_fact {
    const char *label, *value; /* shown as a tile: "best AP", "36.2" */
} pd_report_fact;

typedef struct pd_report {
    const char *title, *subtitle; /* subtitle NULL allowed */
    const pd_report_fact *facts;
    size_t n_facts;
    const pd_report_chart *charts;
    size_t n_charts;
    const pd_report_table *tables;
    size_t n_tables;
    const pd_report_image *images;
    size_t n_images;
    const char *config; /* the configuration's text, folded away; NULL allowed */
} pd_report;

/* Writes the page; it appears whole or not at all. An image that cannot be read is an error. */
pd_status pd_report_write(const char *path, const pd_report *report, pd_err *err);

/* Writes `dir`/report.html from a run's folder: charts from log.jsonl (losses, accuracy, AP, learning rate, speed, the
 * rest), the configuration from config.json where there is one; title, subtitle, facts, tables and images from `extra`,
 * whose charts go behind the log's. */
pd_status pd_report_run(const char *dir, const pd_report *extra, pd_err *err);

#endif
