/* config_tree.h: the merged keys of a configuration, shared by config.c (files to tree), config_read.c (tree to
 * struct) and config_print.c. Private to them. */
#ifndef PD_CONFIG_TREE_H
#define PD_CONFIG_TREE_H

#include "engine/config.h"
#include "engine/json.h"

typedef struct pd_config_source {
    pd_json_doc *doc; /* owned by the pd_config */
    bool command_line;
    struct pd_config_source *next;
} pd_config_source;

typedef struct pd_config_node {
    const char *key;
    const pd_config_source *source; /* what gave the value last: where errors point */
    const pd_json *value;           /* the value; of an object, the object that was merged in last */
    bool object;
    struct pd_config_node *first; /* an object's members, in the order of first appearance */
    struct pd_config_node *next;
} pd_config_node;

struct pd_config {
    pd_arena *arena;
    char *name;
    pd_config_source *sources;
    pd_config_node root;
};

/* The member of that key, NULL where there is none. */
pd_config_node *pd_config_child(const pd_config_node *node, const char *key, size_t length);

/* "from 1 to 10", "" where any value of the type is allowed; returns the length. */
size_t pd_field_range_text(char *out, size_t size, const pd_field *f);
/* What the row takes: "a whole number from 1 to 10", "one of "sgd", "adam"". */
void pd_field_wanted_text(char *out, size_t size, const pd_field *f);
/* Bytes of one value of that type in the struct; 0 for objects. */
size_t pd_field_size(pd_field_type type);

#endif
