/* coco_page.h: the fixed parts of pd_coco_eval's HTML page: how it looks, and what it does under the reader's hand. */
#ifndef PD_COCO_PAGE_H
#define PD_COCO_PAGE_H

/* Style sheet. Colours follow the reader's light or dark setting; --c0 .. --c9 are the curves'. */
extern const char pd_coco_page_style[];

/* Script: a click on a head sorts a table.sort by its column (by data-v where a cell has one; -1, "nothing to find",
 * stays last), the section's input filters its rows, [data-t] is shown under the pointer, and a chart shows its values
 * at the pointer's place. Without it the page can be read, only not sorted. */
extern const char pd_coco_page_script[];

#endif
