/* import.h: parameter names of other programs' files -> ours and back, as tables; and what network a set of names is.
 *
 * Ours are torchvision's for backbones, mmdetection's for detectors, the ParaDise authors' for branches. So most names
 * stay as they are, and a map is a short table of differences:
 *
 *   torchvision  ResNets: nothing differs; its Faster R-CNN ("fasterrcnn_resnet50_fpn") has all names of its own, and
 *                class 0 as the background, which with us stands last. Only reading. (Its anchors are rounded and its
 *                RoIAlign is not aligned: the weights are a start to train from, as they are they lose some AP.)
 *   timm         ResNets ("resnet50", not "resnet50d"): nothing differs; SE-ResNets ("seresnet50"): layerL.B.se.fc1 and
 *                fc2, 1x1 convolutions (o, i, 1, 1), are our linear layers layerL.B.se.fc.0 and fc.2 (o, i)
 *   mmdet        mmdetection 2.x and 3.x: nothing differs; RetinaNet of up to 0.5.3: bbox_head.cls_convs.I.weight and
 *                reg_convs are now cls_convs.I.conv.weight
 *   mmdet1       two-stage detectors of mmdetection 1.x: bbox_head is now roi_head.bbox_head; class 0 of fc_cls was the
 *                background, which now stands last; fc_reg of one box per class loses the background's. Only reading:
 *                what was lost cannot be written. (1.x measured boxes one pixel wider: weights work, AP differs
 * slightly.) paradise     the authors' files: nothing differs but "module." none         every name as it is
 *
 * Except by `none`, "module." (of DataParallel) in front of names is taken off, and a name that is not one of ours in
 * the end is no parameter of our networks: left over. */
#ifndef PD_IMPORT_H
#define PD_IMPORT_H

#include "backbones/resnet.h"

typedef enum pd_map {
    PD_MAP_NONE,
    PD_MAP_TORCHVISION,
    PD_MAP_TIMM,
    PD_MAP_MMDET,
    PD_MAP_MMDET1,
    PD_MAP_PARADISE
} pd_map;

/* What becomes of the values. */
typedef enum pd_map_change {
    PD_MAP_KEEP,
    PD_MAP_FLATTEN,   /* (o, i, 1, 1) -> (o, i); back: (o, i) -> (o, i, 1, 1). Vectors stay */
    PD_MAP_BACK_LAST, /* row 0, the background's, behind the others */
    PD_MAP_DROP_BACK, /* without rows 0 to 3, where there are more than 4 */
} pd_map_change;

/* "timm" -> the map. */
pd_status pd_map_parse(pd_map *out, const char *name, pd_err *err);
const char *pd_map_name(pd_map map);

/* The map that a file with these names needs; PD_MAP_NONE where they are nobody's. */
pd_map pd_map_guess(const char *const *names, size_t count);

/* Our name for `name` of the other program and the change of its values; *out NULL: left over. */
pd_status pd_map_read(char **out, pd_map_change *change, pd_map map, const char *name, pd_arena *arena, pd_err *err);
/* The other program's name for ours (PD_MAP_PARADISE: with "module."). PD_MAP_MMDET1 fails. */
pd_status pd_map_write(char **out, pd_map_change *change, pd_map map, const char *name, pd_arena *arena, pd_err *err);

/* What network these of our names belong to, by names alone: depth, family and branches of the ResNet under `prefix`
 * ("" or "backbone."). False where it is none of ours. A plain ResNet cannot be told from one whose file was folded. */
bool pd_arch_guess(pd_arch *out, const char *prefix, const char *const *names, size_t count);

#endif
