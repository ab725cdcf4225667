/* Files to one tree of keys. What the tables make of the tree is in config_read.c. */
#include "engine/config.h"

#include "engine/config_tree.h"
#include "engine/file.h"

#include <stdlib.h>
#include <string.h>

#define MAX_BASES 16 /* files that lead to each other */

/* A file that is being read, and the one whose "_base_" named it. */
typedef struct chain {
    const char *path, *real;
    const struct chain *from;
    int depth;
} chain;

static pd_status new_config(pd_config **out, const char *name, pd_err *err)
{
    pd_config *c = calloc(1, sizeof *c);
    if (c) c->arena = pd_arena_new();
    if (!c || !c->arena) {
        free(c);
        return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", name);
    }
    const pd_status status = pd_strdup(&c->name, c->arena, name, err);
    if (status != PD_OK) {
        pd_config_free(c);
        return status;
    }
    *out = c;
    return PD_OK;
}

void pd_config_free(pd_config *config)
{
    if (!config) return;
    for (pd_config_source *s = config->sources; s; s = s->next) pd_json_close(s->doc);
    pd_arena_free(config->arena);
    free(config);
}

/* The configuration keeps the document; on failure it is closed. */
static pd_status keep(pd_config_source **out, pd_config *c, pd_json_doc *doc, bool command_line, pd_err *err)
{
    pd_config_source *s = NULL;
    const pd_status status = PD_ALLOC(&s, c->arena, 1, err);
    if (status != PD_OK) {
        pd_json_close(doc);
        return status;
    }
    *s = (pd_config_source){doc, command_line, c->sources};
    c->sources = s;
    *out = s;
    return PD_OK;
}

pd_config_node *pd_config_child(const pd_config_node *node, const char *key, size_t length)
{
    for (pd_config_node *n = node->first; n; n = n->next)
        if (strlen(n->key) == length && !memcmp(n->key, key, length)) return n;
    return NULL;
}

/* The child of that key; a new one, behind the others, where there is none. */
static pd_status child(pd_config_node **out, pd_config *c, pd_config_node *node, const char *key, size_t length,
                       pd_err *err)
{
    pd_config_node *found = pd_config_child(node, key, length), **end = &node->first;
    if (!found) {
        char *copy;
        PD_TRY(pd_strndup(&copy, c->arena, key, length, err));
        PD_TRY(PD_ALLOC(&found, c->arena, 1, err));
        found->key = copy;
        while (*end) end = &(*end)->next;
        *end = found;
    }
    *out = found;
    return PD_OK;
}

/* Lays a value over a node: an object is merged into an object, everything else replaces what was there.
 * NOLINTNEXTLINE(misc-no-recursion): as deep as the document, which is PD_JSON_DEPTH at most */
static pd_status merge(pd_config *c, pd_config_node *node, const pd_config_source *source, const pd_json *value,
                       bool top, pd_err *err)
{
    node->source = source;
    node->value = value;
    if (pd_json_type(value) != PD_JSON_OBJECT) {
        node->object = false;
        node->first = NULL;
        return PD_OK;
    }
    const pd_json *drop = pd_json_member(value, "_delete_");
    if (drop && pd_json_type(drop) != PD_JSON_BOOL)
        return pd_json_fail(source->doc, drop, err, "expected true or false");
    if (!node->object || (drop && pd_json_bool(drop))) node->first = NULL;
    node->object = true;
    for (const pd_json *v = pd_json_first(value); v; v = pd_json_next(v)) {
        const char *key = pd_json_key(v);
        if (v == drop || (top && !strcmp(key, "_base_"))) continue;
        pd_config_node *n;
        PD_TRY(child(&n, c, node, key, strlen(key), err));
        PD_TRY(merge(c, n, source, v, false, err));
    }
    return PD_OK;
}

static pd_status load(pd_config *c, const char *path, const chain *from, pd_err *err);

/* Reads the base that `value` names, relative to the folder of the file that is being read.
 * NOLINTNEXTLINE(misc-no-recursion): MAX_BASES deep at most */
static pd_status load_base(pd_config *c, const pd_json_doc *doc, const pd_json *value, const chain *at, pd_err *err)
{
    char what[128];
    pd_json_describe(what, sizeof what, value);
    if (pd_json_type(value) != PD_JSON_STRING)
        return pd_json_fail(doc, value, err, "is %s, expected a file or a list of files", what);
    const char *slash = strrchr(at->path, '/');
    char *dir, *path;
    PD_TRY(pd_strndup(&dir, c->arena, at->path, slash ? (size_t)(slash - at->path) + 1 : 0, err));
    PD_TRY(pd_path_join(&path, dir, pd_json_string(value), c->arena, err));
    char *real = realpath(path, NULL);
    for (const chain *f = at; f && real; f = f->from) {
        if (strcmp(f->real, real) != 0) continue;
        free(real);
        return pd_json_fail(doc, value, err, "%s leads back to %s", pd_json_string(value), f->path);
    }
    free(real);
    if (at->depth == MAX_BASES) return pd_json_fail(doc, value, err, "more than %d files under each other", MAX_BASES);
    const pd_status status = load(c, path, at, err);
    if (status == PD_EIO) pd_err_context(err, "%s:%zu: _base_", pd_json_name(doc), pd_json_line(doc, value));
    return status;
}

/* NOLINTNEXTLINE(misc-no-recursion): MAX_BASES deep at most */
static pd_status load(pd_config *c, const char *path, const chain *from, pd_err *err)
{
    pd_json_doc *doc;
    pd_config_source *source;
    PD_TRY(pd_json_read(&doc, path, 0, err));
    PD_TRY(keep(&source, c, doc, false, err));
    const pd_json *root = pd_json_root(doc);
    if (pd_json_type(root) != PD_JSON_OBJECT)
        return pd_json_fail(doc, root, err, "a configuration is an object, {...}");
    const pd_json *base = pd_json_member(root, "_base_");
    if (base) {
        char *real = realpath(path, NULL);
        if (!real) return PD_FAIL(err, PD_EIO, "%s: cannot find where it lies", path);
        const chain at = {path, real, from, from ? from->depth + 1 : 1};
        pd_status status = PD_OK;
        if (pd_json_type(base) == PD_JSON_ARRAY) {
            for (const pd_json *b = pd_json_first(base); b && status == PD_OK; b = pd_json_next(b))
                status = load_base(c, doc, b, &at, err);
        } else {
            status = load_base(c, doc, base, &at, err);
        }
        free(real);
        if (status != PD_OK) return status;
    }
    return merge(c, &c->root, source, root, true, err);
}

pd_status pd_config_load(pd_config **out, const char *path, pd_err *err)
{
    pd_config *c;
    PD_TRY(new_config(&c, path, err));
    const pd_status status = load(c, path, NULL, err);
    if (status == PD_OK)
        *out = c;
    else
        pd_config_free(c);
    return status;
}

pd_status pd_config_parse(pd_config **out, const char *name, const char *text, size_t size, pd_err *err)
{
    pd_config *c;
    pd_json_doc *doc = NULL;
    pd_config_source *source;
    PD_TRY(new_config(&c, name, err));
    pd_status status = PD_OK;
    PD_TRY_DONE(pd_json_parse(&doc, name, text, size, err));
    PD_TRY_DONE(keep(&source, c, doc, false, err));
    const pd_json *root = pd_json_root(doc), *base = pd_json_member(root, "_base_");
    if (pd_json_type(root) != PD_JSON_OBJECT)
        status = pd_json_fail(doc, root, err, "a configuration is an object, {...}");
    else if (base)
        status = pd_json_fail(doc, base, err, "only a file can have bases");
    else
        status = merge(c, &c->root, source, root, true, err);
done:
    if (status == PD_OK)
        *out = c;
    else
        pd_config_free(c);
    return status;
}

/* ---- assignments ---- */

/* The node at a path, made with all objects on the way. Nothing is changed where the path is malformed. */
static pd_status node_at(pd_config_node **out, pd_config *c, const pd_config_source *source, const char *path,
                         size_t length, pd_err *err)
{
    for (size_t i = 0; i <= length; i++)
        if ((i == length || path[i] == '.') && (i == 0 || path[i - 1] == '.'))
            return PD_FAIL(err, PD_EINVAL, "command line: \"%.*s\" is no key path (expected KEY.KEY=VALUE)",
                           (int)length, path);
    pd_config_node *node = &c->root;
    for (size_t begin = 0; begin <= length;) {
        size_t end = begin;
        while (end < length && path[end] != '.') end++;
        if (!node->object) {
            *node = (pd_config_node){.key = node->key, .next = node->next, .object = true};
            node->source = source;
            node->value = pd_json_root(source->doc);
        }
        PD_TRY(child(&node, c, node, path + begin, end - begin, err));
        begin = end + 1;
    }
    *out = node;
    return PD_OK;
}

/* Takes over the document, whose root is the value. */
static pd_status assign(pd_config *c, const char *path, size_t length, pd_json_doc *doc, pd_err *err)
{
    pd_config_source *source;
    pd_config_node *node = NULL;
    PD_TRY(keep(&source, c, doc, true, err));
    PD_TRY(node_at(&node, c, source, path, length, err));
    return merge(c, node, source, pd_json_root(doc), false, err);
}

/* A document that is one string. */
static pd_status string_doc(pd_json_doc **out, const char *value, pd_err *err)
{
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    char *text;
    pd_json_writer *w = pd_json_array();
    pd_json_put_string(w, NULL, value);
    pd_status status = pd_json_finish(&text, w, false, arena, err);
    /* ["value"] without its brackets */
    if (status == PD_OK) status = pd_json_parse(out, "command line", text + 1, strlen(text) - 2, err);
    if (status != PD_OK) pd_err_context(err, "command line");
    pd_arena_free(arena);
    return status;
}

pd_status pd_config_set(pd_config *config, const char *assignment, pd_err *err)
{
    const char *equals = strchr(assignment, '=');
    if (!equals)
        return PD_FAIL(err, PD_EINVAL, "command line: \"%s\": expected KEY=VALUE, as in optimizer.lr=0.02", assignment);
    pd_json_doc *doc;
    pd_status status = pd_json_parse(&doc, "command line", equals + 1, strlen(equals + 1), err);
    if (status == PD_EFORMAT) {
        if (err) *err = (pd_err)PD_ERR_INIT;
        status = string_doc(&doc, equals + 1, err);
    }
    return status == PD_OK ? assign(config, assignment, (size_t)(equals - assignment), doc, err) : status;
}

pd_status pd_config_set_string(pd_config *config, const char *path, const char *value, pd_err *err)
{
    pd_json_doc *doc;
    PD_TRY(string_doc(&doc, value, err));
    return assign(config, path, strlen(path), doc, err);
}

pd_status pd_config_set_number(pd_config *config, const char *path, double value, pd_err *err)
{
    char text[32];
    pd_json_doc *doc;
    pd_json_format_double(text, value);
    PD_TRY(pd_json_parse(&doc, "command line", text, strlen(text), err));
    return assign(config, path, strlen(path), doc, err);
}

/* ---- looking ---- */

static const pd_config_node *find(const pd_config *c, const char *path)
{
    const pd_config_node *node = &c->root;
    while (node && *path) {
        const size_t n = strcspn(path, ".");
        node = pd_config_child(node, path, n);
        path += n + (path[n] == '.');
    }
    return node;
}

const char *pd_config_peek(const pd_config *config, const char *path)
{
    const pd_config_node *node = find(config, path);
    return node && node->value && pd_json_type(node->value) == PD_JSON_STRING ? pd_json_string(node->value) : NULL;
}

bool pd_config_has(const pd_config *config, const char *path)
{
    return find(config, path) != NULL;
}
