/* chart.h: line charts as inline SVG for an HTML page.
 *
 * Colours come from the page's CSS variables --c0 ... --c7 (curves), --grid, --ink and --faint (text); the page's
 * script (tools/report.c) reads the chart's numbers, which follow it as JSON, to show values under the pointer. */
#ifndef PD_CHART_H
#define PD_CHART_H

#include "engine/arena.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct pd_report_curve {
    const char *label;
    const double *x, *y; /* x rising; a NaN in y is a gap */
    size_t count;
    bool smooth; /* draw the values faintly and over them their moving average (exponential, over 1/50 of the run) */
} pd_report_curve;

typedef struct pd_report_chart {
    const char *title, *x_label;
    const pd_report_curve *curves; /* eight are told apart by colour, the next eight by dashes */
    size_t n_curves;
    bool log_y; /* logarithmic, where all values are above 0 */
} pd_report_chart;

/* Writes one <figure>; a chart without a single finite value writes nothing. */
pd_status pd_chart_write(FILE *out, const pd_report_chart *chart, pd_err *err);

/* Writes text with <, >, & and quotes as HTML wants them. */
void pd_html_text(FILE *out, const char *text);

#endif
