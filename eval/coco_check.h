/* coco_check.h: what is wrong, or odd, in annotations and results, as one report.
 *
 * An error makes an evaluation fail or mean something else than it seems to; a warning is probably a mistake; a note is
 * worth knowing. Each finding is counted and shown once, with the first record it is about. */
#ifndef PD_COCO_CHECK_H
#define PD_COCO_CHECK_H

#include "eval/coco_gt.h"
#include "eval/results.h"

typedef enum pd_coco_severity { PD_COCO_ERROR, PD_COCO_WARNING, PD_COCO_NOTE } pd_coco_severity;

typedef struct pd_coco_finding {
    pd_coco_severity severity;
    const char *what; /* "boxes outside of their image" */
    size_t count;
    char first[256]; /* "annotations[3] (id 7): ..." */
} pd_coco_finding;

/* A report being written; zero to begin with. */
typedef struct pd_coco_findings {
    pd_coco_finding *items;
    size_t n, capacity;
    size_t errors, warnings; /* records */
} pd_coco_findings;
void pd_coco_findings_free(pd_coco_findings *findings);

/* Counts a finding; `what` (kept) tells kinds apart, the first one's text is shown. */
pd_status pd_coco_find_fault(pd_coco_findings *findings, pd_coco_severity severity, const char *what, pd_err *err,
                             const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* All of the file's syntax, skipped parts included: PD_EFORMAT with line and byte at the first fault. */
pd_status pd_coco_check_syntax(const char *path, pd_err *err);

/* Looks at every image, category and annotation. gt should have been opened with PD_COCO_READ_MASKS,
 * PD_COCO_READ_KEYPOINTS and PD_COCO_READ_NAMES. */
pd_status pd_coco_check_gt(pd_coco_findings *findings, const pd_coco_gt *gt, pd_err *err);
/* Looks at every detection. dt should have been opened with skip_unknown_images. */
pd_status pd_coco_check_dt(pd_coco_findings *findings, const pd_coco_dt *dt, pd_err *err);

#endif
