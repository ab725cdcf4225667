/* The corners of COCO's evaluation, one row each: what pycocotools 2.0.11 with numpy 1.24 answers, number for number,
 * or what is said where it stops with an exception. Apostrophes stand for quotation marks. */
#include "eval/coco_ap.h"
#include "tests/pd_test.h"

#include <stdarg.h>

#define IMAGES "'images': [{'id': 1, 'width': 20, 'height': 16}, {'id': 2, 'width': 20, 'height': 16}]"
#define CATEGORIES "'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}]"

#define OBJECT "{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 10, 10], 'area': 100, 'iscrowd': 0}"
#define SECOND "{'id': 2, 'image_id': 2, 'category_id': 1, 'bbox': [5, 5, 4, 4], 'area': 16, 'iscrowd': 0}"
#define FOUND "{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 10, 10], 'score': 0.5}"
#define POINTS                                                                                                         \
    "[1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, " \
    "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"
#define POSE                                                                                                           \
    "[1, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, " \
    "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"
#define POINTS16                                                                                                       \
    "[1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, " \
    "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"
#define POINTS18                                                                                                       \
    "[1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, " \
    "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"
#define BOX "'bbox': [0, 0, 10, 10]"
#define POLYGON "'segmentation': [[0, 0, 10, 0, 10, 10, 0, 10]]"
#define NOTHING                                                                                                        \
    {                                                                                                                  \
        0, 0, 0, 0, -1, -1, 0, 0, 0, 0, -1, -1                                                                         \
    }
#define NONE                                                                                                           \
    {                                                                                                                  \
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1                                                                 \
    }
#define HALF                                                                                                           \
    {                                                                                                                  \
        0.5, 0.5, 0.5, 0.5, -1, -1, 1, 1, 1, 1, -1, -1                                                                 \
    }
#define ALL                                                                                                            \
    {                                                                                                                  \
        0.9999999999999998, 0.9999999999999999, 0.9999999999999999, 0.9999999999999998, -1, -1, 1, 1, 1, 1, -1, -1     \
    }

static const struct {
    const char *name, *annotations, *results; /* annotations NULL: no such key */
    pd_coco_type type;
    const char *error;
    double stats[12];
} rows[] = {
    {"results []", "[" OBJECT "]", "[]", PD_COCO_BBOX, NULL, NOTHING},
    {"results are an object",
     "[" OBJECT "]",
     "{'annotations': [" FOUND "]}",
     PD_COCO_BBOX,
     "line 1, byte 0: expected a list of results, found an object (results are a JSON array)",
     {0}},
    {"an unknown image in the results",
     "[" OBJECT "]",
     "[" FOUND ", {'image_id': 77, 'category_id': 1, " BOX ", 'score': 0.5}]",
     PD_COCO_BBOX,
     "1 of 2 records are of images that gt does not list (image_id 77; the first is record 1): results and ground "
     "truth do not belong together",
     {0}},
    {"an image id of text where ids are numbers",
     "[" OBJECT "]",
     "[{'image_id': '1', 'category_id': 1, " BOX ", 'score': 0.5}]",
     PD_COCO_BBOX,
     "1 of 1 records are of images that gt does not list (image_id \"1\"; the first is record 0): results and ground "
     "truth do not belong together",
     {0}},
    {"an unknown category in the results", "[" OBJECT "]",
     "[{'image_id': 1, 'category_id': 7, " BOX ", 'score': 0.9}, " FOUND "]", PD_COCO_BBOX, NULL, ALL},
    {"a category id of text where ids are numbers", "[" OBJECT "]",
     "[{'image_id': 1, 'category_id': '1', " BOX ", 'score': 0.5}]", PD_COCO_BBOX, NULL, NOTHING},
    {"a category id with a fraction of 0", "[" OBJECT "]",
     "[{'image_id': 1, 'category_id': 1.0, " BOX ", 'score': 0.5}]", PD_COCO_BBOX, NULL, ALL},
    {"no objects", "[]", "[" FOUND "]", PD_COCO_BBOX, NULL, NONE},
    {"only crowds", "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 1}]", "[" FOUND "]",
     PD_COCO_BBOX, NULL, NONE},
    {"no annotations key", NULL, "[" FOUND "]", PD_COCO_BBOX, NULL, NONE},
    {"a category without detections",
     "[" OBJECT ", {'id': 2, 'image_id': 1, 'category_id': 2, " BOX ", 'area': 100, 'iscrowd': 0}]",
     "[" FOUND "]",
     PD_COCO_BBOX,
     NULL,
     {0.4999999999999999, 0.49999999999999994, 0.49999999999999994, 0.4999999999999999, -1, -1, 0.5, 0.5, 0.5, 0.5, -1,
      -1}},
    {"a category without objects", "[" OBJECT "]",
     "[" FOUND ", {'image_id': 1, 'category_id': 2, " BOX ", 'score': 0.9}]", PD_COCO_BBOX, NULL, ALL},
    {"an image without objects", "[" OBJECT "]",
     "[" FOUND ", {'image_id': 2, 'category_id': 1, " BOX ", 'score': 0.9}]", PD_COCO_BBOX, NULL, HALF},
    {"an object without area",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'iscrowd': 0}]",
     "[" FOUND "]",
     PD_COCO_BBOX,
     "annotations[0] (id 1): has no area",
     {0}},
    {"a crowd without area", "[" OBJECT ", {'id': 2, 'image_id': 1, 'category_id': 1, " BOX ", 'iscrowd': 1}]",
     "[" FOUND "]", PD_COCO_BBOX, NULL, ALL},
    {"an object without iscrowd",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100}]",
     "[" FOUND "]",
     PD_COCO_BBOX,
     "annotations[0] (id 1): has no iscrowd",
     {0}},
    {"iscrowd 2", "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 2}, " SECOND "]",
     "[{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 5, 5], 'score': 0.5}, {'image_id': 2, 'category_id': 1, "
     "'bbox': [5, 5, 4, 4], 'score': 0.4}]",
     PD_COCO_BBOX, NULL, ALL},
    {"iscrowd true", "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': true}, " SECOND "]",
     "[{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 5, 5], 'score': 0.5}, {'image_id': 2, 'category_id': 1, "
     "'bbox': [5, 5, 4, 4], 'score': 0.4}]",
     PD_COCO_BBOX, NULL, ALL},
    {"iscrowd 256",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 256}, " SECOND "]",
     "[" FOUND "]",
     PD_COCO_BBOX,
     "annotations[0] (id 1): iscrowd is not a number between 0 and 255",
     {0}},
    {"iscrowd null",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': null}]",
     "[" FOUND "]",
     PD_COCO_BBOX,
     "annotations[0] (id 1): iscrowd is not a number between 0 and 255",
     {0}},
    {"area null",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': null, 'iscrowd': 0}]",
     "[" FOUND "]",
     PD_COCO_BBOX,
     "annotations[0] (id 1): area is not a number",
     {0}},
    {"area text",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': '100', 'iscrowd': 0}]",
     "[" FOUND "]",
     PD_COCO_BBOX,
     "annotations[0] (id 1): area is not a number",
     {0}},
    {"keypoints without num_keypoints",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0, 'keypoints': " POINTS "}]",
     "[{'image_id': 1, 'category_id': 1, 'score': 0.5, 'keypoints': " POSE "}]",
     PD_COCO_KEYPOINTS,
     "annotations[0] (id 1): has no num_keypoints",
     {0}},
    {"num_keypoints 0 but labelled points",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX
     ", 'area': 2000, 'iscrowd': 0, 'num_keypoints': 0, 'keypoints': " POINTS
     "}, {'id': 2, 'image_id': 2, 'category_id': 1, " BOX
     ", 'area': 2000, 'iscrowd': 0, 'num_keypoints': 1, 'keypoints': " POINTS "}]",
     "[{'image_id': 1, 'category_id': 1, 'score': 0.5, 'keypoints': " POSE
     "}, {'image_id': 2, 'category_id': 1, 'score': 0.4, 'keypoints': " POSE "}]",
     PD_COCO_KEYPOINTS,
     NULL,
     {0.8999999999999999, 0.9999999999999999, 0.9999999999999999, 0.8999999999999999, -1, 0.9, 1, 1, 0.9, -1}},
    {"16 points",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX
     ", 'area': 2000, 'iscrowd': 0, 'num_keypoints': 1, 'keypoints': " POINTS16 "}]",
     "[{'image_id': 1, 'category_id': 1, 'score': 0.5, 'keypoints': " POINTS16 "}]",
     PD_COCO_KEYPOINTS,
     "16 keypoints, but there are 17 sigmas",
     {0}},
    {"18 points",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX
     ", 'area': 2000, 'iscrowd': 0, 'num_keypoints': 1, 'keypoints': " POINTS18 "}]",
     "[{'image_id': 1, 'category_id': 1, 'score': 0.5, 'keypoints': " POINTS18 "}]",
     PD_COCO_KEYPOINTS,
     "18 keypoints, but there are 17 sigmas",
     {0}},
    {"a box of three numbers",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 10], 'area': 100, 'iscrowd': 0}]",
     "[" FOUND "]",
     PD_COCO_BBOX,
     "annotations[0] (id 1): bbox is not a list of four numbers",
     {0}},
    {"a box of five numbers",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 10, 10, 1], 'area': 100, 'iscrowd': 0}]",
     "[" FOUND "]",
     PD_COCO_BBOX,
     "annotations[0] (id 1): bbox is not a list of four numbers",
     {0}},
    {"a detected box of three numbers",
     "[" OBJECT "]",
     "[{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 10], 'score': 0.5}]",
     PD_COCO_BBOX,
     "line 1, byte 1: this record's bbox is not a list of four numbers",
     {0}},
    {"a detected box of text",
     "[" OBJECT "]",
     "[{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, '10', 10], 'score': 0.5}]",
     PD_COCO_BBOX,
     "line 1, byte 1: this record's bbox is not a list of four numbers",
     {0}},
    {"no score",
     "[" OBJECT "]",
     "[{'image_id': 1, 'category_id': 1, " BOX "}]",
     PD_COCO_BBOX,
     "byte 1: record 0 has no score",
     {0}},
    {"score null",
     "[" OBJECT "]",
     "[{'image_id': 1, 'category_id': 1, " BOX ", 'score': null}]",
     PD_COCO_BBOX,
     "byte 1: record 0 has a score that is no number",
     {0}},
    {"score text",
     "[" OBJECT "]",
     "[{'image_id': 1, 'category_id': 1, " BOX ", 'score': '0.5'}]",
     PD_COCO_BBOX,
     "byte 1: record 0 has a score that is no number",
     {0}},
    {"score NaN is last", "[" OBJECT "]",
     "[{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 10, 9], 'score': NaN}, {'image_id': 1, 'category_id': 1, " BOX
     ", 'score': -7}]",
     PD_COCO_BBOX, NULL, ALL},
    {"scores infinite, negative, whole",
     "[" OBJECT ", " SECOND "]",
     "[{'image_id': 1, 'category_id': 1, " BOX ", 'score': -Infinity}, {'image_id': 2, 'category_id': 1, " BOX
     ", 'score': Infinity}, {'image_id': 2, 'category_id': 1, 'bbox': [5, 5, 4, 4], 'score': 3}]",
     PD_COCO_BBOX,
     NULL,
     {0.6666666666666666, 0.6666666666666669, 0.6666666666666669, 0.6666666666666666, -1, -1, 0.5, 1, 1, 1, -1, -1}},
    {"a detected box of NaN width matches", "[" OBJECT "]",
     "[{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, NaN, 10], 'score': 0.5}]", PD_COCO_BBOX, NULL, ALL},
    {"a detection of no area",
     "[" OBJECT "]",
     "[" FOUND ", {'image_id': 1, 'category_id': 1, 'bbox': [2, 2, 0, 5], 'score': 0.9}]",
     PD_COCO_BBOX,
     NULL,
     {0.5, 0.5, 0.5, 0.5, -1, -1, 0, 1, 1, 1, -1, -1}},
    {"a box of negative width",
     "[" OBJECT "]",
     "[" FOUND ", {'image_id': 1, 'category_id': 1, 'bbox': [8, 8, -5, 5], 'score': 0.9}]",
     PD_COCO_BBOX,
     NULL,
     {0.9999999999999998, 0.9999999999999999, 0.9999999999999999, 0.9999999999999998, -1, -1, 0, 1, 1, 1, -1, -1}},
    {"a box of negative width and height",
     "[" OBJECT "]",
     "[" FOUND ", {'image_id': 1, 'category_id': 1, 'bbox': [8, 8, -5, -5], 'score': 0.9}]",
     PD_COCO_BBOX,
     NULL,
     {0.5, 0.5, 0.5, 0.5, -1, -1, 0, 1, 1, 1, -1, -1}},
    {"one object found twice",
     "[" OBJECT ", " SECOND "]",
     "[{'image_id': 1, 'category_id': 1, " BOX ", 'score': 0.9}, {'image_id': 1, 'category_id': 1, " BOX
     ", 'score': 0.8}, {'image_id': 2, 'category_id': 1, 'bbox': [5, 5, 4, 4], 'score': 0.7}]",
     PD_COCO_BBOX,
     NULL,
     {0.8349834983498348, 0.834983498349835, 0.834983498349835, 0.8349834983498348, -1, -1, 1, 1, 1, 1, -1, -1}},
    {"equal scores: by image, then file order",
     "[" OBJECT ", " SECOND "]",
     "[{'image_id': 2, 'category_id': 1, 'bbox': [5, 5, 4, 4], 'score': 0.5}, {'image_id': 1, 'category_id': 1, "
     "'bbox': [1, 1, 2, 2], 'score': 0.5}, " FOUND "]",
     PD_COCO_BBOX,
     NULL,
     {0.6666666666666666, 0.6666666666666669, 0.6666666666666669, 0.6666666666666666, -1, -1, 0.5, 1, 1, 1, -1, -1}},
    {"object id 0", "[{'id': 0, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0}]", "[" FOUND "]",
     PD_COCO_BBOX, NULL, NOTHING},
    {"an object id twice",
     "[" OBJECT ", {'id': 1, 'image_id': 2, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0}]",
     "[" FOUND ", {'image_id': 2, 'category_id': 1, " BOX ", 'score': 0.4}]",
     PD_COCO_BBOX,
     NULL,
     {0.2524752475247525, 0.2524752475247525, 0.2524752475247525, 0.2524752475247525, -1, -1, 0.5, 0.5, 0.5, 0.5, -1,
      -1}},
    {"no object id",
     "[{'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0}]",
     "[" FOUND "]",
     PD_COCO_BBOX,
     "line 1, byte 169: this annotation has no id",
     {0}},
    {"an object id of text",
     "[{'id': 'x', 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0}]",
     "[" FOUND "]",
     PD_COCO_BBOX,
     "line 1, byte 169: this annotation's id is text; a number is needed",
     {0}},
    {"a negative object id", "[{'id': -3, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0}]",
     "[" FOUND "]", PD_COCO_BBOX, NULL, ALL},
    {"ignore has no effect",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0, 'ignore': 1}]", "[" FOUND "]",
     PD_COCO_BBOX, NULL, ALL},
    {"masks are boxes where the results are",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0, " POLYGON "}]",
     "[{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 10, 9], 'score': 0.5}]",
     PD_COCO_SEGM,
     NULL,
     {0.8999999999999999, 0.9999999999999999, 0.9999999999999999, 0.8999999999999999, -1, -1, 0.9, 0.9, 0.9, 0.9, -1,
      -1}},
    {"an empty segmentation",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0, 'segmentation': []}]",
     "[" FOUND "]",
     PD_COCO_SEGM,
     "annotations[0] (id 1): segmentation is empty",
     {0}},
    {"a first polygon of 4 numbers",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX
     ", 'area': 100, 'iscrowd': 0, 'segmentation': [[0, 0, 10, 10]]}]",
     "[" FOUND "]",
     PD_COCO_SEGM,
     "annotations[0] (id 1): the first polygon has less than three points",
     {0}},
    {"a second polygon of 4 numbers",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX
     ", 'area': 100, 'iscrowd': 0, 'segmentation': [[0, 0, 10, 0, 10, 10, 0, 10], [1, 1, 2, 2]]}]",
     "[" FOUND "]", PD_COCO_SEGM, NULL, ALL},
    {"a polygon of an odd number of numbers",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX
     ", 'area': 100, 'iscrowd': 0, 'segmentation': [[0, 0, 10, 0, 10, 10, 0, 10, 3]]}]",
     "[" FOUND "]", PD_COCO_SEGM, NULL, ALL},
    {"a mask without runs",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0, 'segmentation': {'size': [16, "
     "20], 'counts': []}}, {'id': 2, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0, " POLYGON
     "}]",
     "[{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 10, 9], 'score': 0.5}]",
     PD_COCO_SEGM,
     NULL,
     {0.45445544554455436, 0.5049504950495048, 0.5049504950495048, 0.45445544554455436, -1, -1, 0.45, 0.45, 0.45, 0.45,
      -1, -1}},
    {"counts of a mask that are cut off",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0, " POLYGON "}]",
     "[{'image_id': 1, 'category_id': 1, 'score': 0.5, 'segmentation': {'size': [16, 20], 'counts': '0P'}}]",
     PD_COCO_SEGM,
     "line 1, byte 1: segmentation: counts are cut off or not run-length text",
     {0}},
    {"counts of a mask beyond its size",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0, " POLYGON "}]",
     "[{'image_id': 1, 'category_id': 1, 'score': 0.5, 'segmentation': {'size': [16, 20], 'counts': '0PPP2'}}]",
     PD_COCO_SEGM,
     "line 1, byte 1: segmentation: counts hold more pixels than size",
     {0}},
    {"plain counts in a result without boxes",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0, " POLYGON "}]",
     "[{'image_id': 1, 'category_id': 1, 'score': 0.5, 'segmentation': {'size': [16, 20], 'counts': [0, 320]}}]",
     PD_COCO_SEGM,
     "line 1, byte 1: segmentation: counts must be text in a result without boxes",
     {0}},
    {"neither box nor mask nor keypoints",
     "[" OBJECT "]",
     "[{'image_id': 1, 'category_id': 1, 'score': 0.5}]",
     PD_COCO_BBOX,
     "line 1, byte 0: the first record has neither bbox nor segmentation nor keypoints",
     {0}},
    {"an empty box decides nothing",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, " BOX ", 'area': 100, 'iscrowd': 0, " POLYGON "}]",
     "[{'image_id': 1, 'category_id': 1, 'bbox': [], 'score': 0.5, 'segmentation': {'size': [16, 20], 'counts': "
     "'0P:'}}]",
     PD_COCO_SEGM, NULL, NOTHING},
    {"NaN and Infinity in an object",
     "[{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [NaN, 0, 10, 10], 'area': 100, 'iscrowd': 0}, " SECOND "]",
     "[" FOUND ", {'image_id': 2, 'category_id': 1, 'bbox': [5, 5, Infinity, 4], 'score': 0.5}]",
     PD_COCO_BBOX,
     NULL,
     {0.5049504950495048, 0.5049504950495048, 0.5049504950495048, 0.5049504950495048, -1, -1, 0.5, 0.5, 0.5, 0.5, -1,
      -1}},
    {"results cut off",
     "[" OBJECT "]",
     "[{'image_id': 1, 'categ",
     PD_COCO_BBOX,
     "line 1, byte 17: this string has no closing quote",
     {0}},
    {"something behind the results",
     "[" OBJECT "]",
     "[] x",
     PD_COCO_BBOX,
     "line 1, byte 3: expected the end of the file, found 'x'",
     {0}},
    {"results of 0 bytes",
     "[" OBJECT "]",
     "",
     PD_COCO_BBOX,
     "line 1, byte 0: expected a list, found the end of the file",
     {0}},
};

/* Apostrophes to quotation marks. */
static pd_bytes quoted(char *out, size_t room, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static pd_bytes quoted(char *out, size_t room, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(out, room, fmt, args);
    va_end(args);
    PD_CHECK(n >= 0 && (size_t)n < room);
    for (char *p = out; *p; p++)
        if (*p == '\'') *p = '"';
    return (pd_bytes){(const unsigned char *)out, strlen(out)};
}

static pd_status answer(pd_coco_result **r, pd_bytes gt_text, pd_bytes dt_text, const pd_coco_params *params,
                        pd_err *err)
{
    static const unsigned reads[] = {0, PD_COCO_READ_MASKS, PD_COCO_READ_KEYPOINTS};
    const pd_coco_gt_options gt_options = {.read = reads[params->type]};
    const pd_coco_dt_options dt_options = {.read = reads[params->type]};
    pd_coco_gt *gt = NULL;
    pd_coco_dt *dt = NULL;
    pd_status status = pd_coco_gt_parse(&gt, gt_text, "gt", &gt_options, NULL, err);
    if (status == PD_OK) status = pd_coco_dt_parse(&dt, gt, dt_text, "dt", &dt_options, NULL, err);
    if (status == PD_OK) status = pd_coco_evaluate(r, gt, dt, params, NULL, err);
    pd_coco_dt_close(dt);
    pd_coco_gt_close(gt);
    return status;
}

static void check_stats(const pd_coco_result *r, const double *want)
{
    for (int i = 0; r && i < r->n_stats; i++)
        PD_CHECK_MSG(r->stats[i] == want[i], "%s is %.17g, expected %.17g", r->names[i], r->stats[i], want[i]);
}

static void test_rows(void)
{
    static char gt[4096], dt[4096];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PD_ROW(rows[i].name);
        pd_err err = PD_ERR_INIT;
        pd_coco_result *r = NULL;
        const pd_coco_params params = {.type = rows[i].type};
        const char *const annotations = rows[i].annotations;
        const pd_bytes gt_text = quoted(gt, sizeof gt, "{" IMAGES ", " CATEGORIES "%s%s}",
                                        annotations ? ", 'annotations': " : "", annotations ? annotations : "");
        const pd_bytes dt_text = quoted(dt, sizeof dt, "%s", rows[i].results);
        const pd_status status = answer(&r, gt_text, dt_text, &params, &err);
        if (rows[i].error) {
            PD_CHECK_FAILS(status, PD_EFORMAT, rows[i].error);
        } else {
            PD_CHECK_OK(status);
            check_stats(r, rows[i].stats);
        }
        pd_coco_result_free(r);
    }
    PD_ROW("");
}

/* ---- the text of a ground truth: the answers that coco_gt.h promises ---- */

static void test_text(void)
{
    static const struct {
        const char *name, *gt, *error; /* error NULL: one object, found */
    } texts[] = {
        {"0 bytes", "", "line 1, byte 0: expected an object, found the end of the file"},
        {"cut off", "{" IMAGES ", 'cat", "this string has no closing quote"},
        {"something behind", "{" IMAGES ", " CATEGORIES ", 'annotations': [" OBJECT "]} {}",
         "expected the end of the file, found '{'"},
        {"no images", "{" CATEGORIES "}", "images"},
        {"no categories", "{" IMAGES "}", "categories"},
        {"not UTF-8 in a name", "{" IMAGES ", 'categories': [{'id': 1, 'name': '\xff'}]}", "UTF-8"},
        {"a key twice: the last one",
         "{" IMAGES ", " CATEGORIES ", 'annotations': [{'id': 1, 'image_id': 2, "
         "'image_id': 1, 'category_id': 1, " BOX ", 'area': null, 'area': 100, 'iscrowd': 0}]}",
         NULL},
        {"an image and a category twice",
         "{'images': [{'id': 1}, {'id': 2}, {'id': 1.0}], 'categories': [{'id': 1}, "
         "{'id': 2}, {'id': 1}], 'annotations': [" OBJECT "]}",
         NULL},
        {"a byte-order mark", "\xef\xbb\xbf{" IMAGES ", " CATEGORIES ", 'annotations': [" OBJECT "]}", NULL},
        {"escapes in keys", "{" IMAGES ", " CATEGORIES ", 'annot\\u0061tions': [" OBJECT "]}", NULL},
        {"keys nobody asks for", "{'info': {'x': [1, '}']}, " IMAGES ", " CATEGORIES ", 'annotations': [" OBJECT "]}",
         NULL},
        {"an area of 1e999",
         "{" IMAGES ", " CATEGORIES ", 'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1, " BOX
         ", 'area': 1e999, 'iscrowd': 0}, {'id': 2, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 10, 10], "
         "'area': 100, 'iscrowd': 0}]}",
         NULL},
    };
    static char gt[8192], dt[512];
    static const double found[12] = ALL;
    const pd_coco_params params = {.type = PD_COCO_BBOX};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        PD_ROW(texts[i].name);
        pd_err err = PD_ERR_INIT;
        pd_coco_result *r = NULL;
        const pd_status status = answer(&r, quoted(gt, sizeof gt, "%s", texts[i].gt),
                                        quoted(dt, sizeof dt, "%s", "[" FOUND "]"), &params, &err);
        if (texts[i].error) {
            PD_CHECK_FAILS(status, PD_EFORMAT, texts[i].error);
        } else {
            PD_CHECK_OK(status);
            check_stats(r, found);
        }
        pd_coco_result_free(r);
    }
    PD_ROW("deeper than 256");
    memset(gt, '[', 300);
    gt[300] = '\0';
    pd_err err = PD_ERR_INIT;
    pd_coco_result *r = NULL;
    static char deep[1024];
    PD_CHECK_FAILS(answer(&r, quoted(deep, sizeof deep, "{'x': %s", gt), quoted(dt, sizeof dt, "[]"), &params, &err),
                   PD_EFORMAT, "nested");
    PD_ROW("");
}

/* ---- options ---- */

/* 101 detections of a cell: the best 100 count, whatever their order. */
static void test_limit(void)
{
    static char gt[1024], dt[16384], one[256];
    pd_err err = PD_ERR_INIT;
    pd_coco_result *r = NULL;
    const pd_coco_params params = {.type = PD_COCO_BBOX};
    for (int worst = 0; worst < 2; worst++) { /* the one that fits is the last of the file, and the best or the worst */
        PD_ROW(worst ? "101 detections, the worst fits" : "101 detections, the best fits");
        strcpy(dt, "[");
        for (int i = 0; i < 101; i++) {
            snprintf(one, sizeof one,
                     "%s{\"image_id\": 1, \"category_id\": 1, \"bbox\": [%d, 0, 10, 10], \"score\": 0.%03d}",
                     i ? ", " : "", i == 100 ? 0 : 50, i == 100 ? (worst ? 1 : 999) : 500 - i);
            strcat(dt, one);
        }
        strcat(dt, "]");
        const pd_bytes gt_text = quoted(gt, sizeof gt, "{" IMAGES ", " CATEGORIES ", 'annotations': [" OBJECT "]}");
        PD_CHECK_OK(answer(&r, gt_text, (pd_bytes){(const unsigned char *)dt, strlen(dt)}, &params, &err));
        PD_CHECK(r->stats[8] == (worst ? 0 : 1)); /* AR100 */
        PD_CHECK_INT(r->detections, 100);
        pd_coco_result_free(r);
    }
    PD_ROW("");
}

static void test_options(void)
{
    static char gt[1024], dt[1024];
    pd_err err = PD_ERR_INIT;
    pd_coco_result *r = NULL;
    const pd_bytes gt_text =
        quoted(gt, sizeof gt, "{" IMAGES ", " CATEGORIES ", 'annotations': [" OBJECT ", " SECOND "]}");
    const pd_bytes dt_text = quoted(
        dt, sizeof dt, "%s", "[" FOUND ", {'image_id': 2, 'category_id': 1, 'bbox': [9, 9, 1, 1], 'score': 0.9}]");
    const size_t two[] = {10, 1};
    const pd_coco_params less = {.limits = two, .n_limits = 2};
    PD_ROW("two limits"); /* pycocotools stops; we give the numbers there are */
    PD_CHECK_OK(answer(&r, gt_text, dt_text, &less, &err));
    PD_CHECK(r->stats[0] == -1 && r->ap_max > 0.2 && r->ap_max < 0.3 && r->stats[6] == 0.5 && r->stats[7] == 0.5);
    PD_CHECK(r->limits[0] == 1 && r->limits[1] == 10);
    pd_coco_result_free(r);
    PD_ROW("a threshold twice"); /* AP75 is the mean of both */
    const double thresholds[] = {0.75, 0.5, 0.75};
    const pd_coco_params twice = {.iou_thrs = thresholds, .n_iou = 3};
    PD_CHECK_OK(answer(&r, gt_text, dt_text, &twice, &err));
    PD_CHECK(r->stats[1] == 0.25247524752475248 && r->stats[2] == 0.2524752475247525);
    pd_coco_result_free(r);
    PD_ROW("one image"); /* results of the others are left out */
    const pd_coco_id one = pd_coco_int_id(1), none = pd_coco_int_id(9);
    const pd_coco_params subset = {.images = &one, .n_images = 1};
    static const double found[12] = ALL;
    PD_CHECK_OK(answer(&r, gt_text, dt_text, &subset, &err));
    check_stats(r, found);
    pd_coco_result_free(r);
    const pd_coco_params unknown = {.images = &none, .n_images = 1};
    PD_CHECK_FAILS(answer(&r, gt_text, dt_text, &unknown, &err), PD_EINVAL, "image 9 is not in gt");
    PD_ROW("");
}

int main(void)
{
    test_rows();
    test_text();
    test_limit();
    test_options();
    return pd_test_end();
}
