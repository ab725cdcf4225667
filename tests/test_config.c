/* Configurations: merging, every kind of row, messages, printing that reads back. */
#include "engine/config.h"
#include "engine/file.h"
#include "tests/pd_test.h"

#include <unistd.h>

typedef enum { SGD, ADAM } rule;

typedef struct {
    rule rule;
    double lr;
    float momentum;
    double betas[2];
} opt_cfg;

typedef struct {
    int crop;
    double area[2];
} transform_cfg;

typedef struct {
    bool flip;
    int size[2];
    int milestones[4];
    int n_milestones;
    const char *classes[3];
    int n_classes;
    int branches[4];
    int n_branches;
    const char *root, *name;
    int64_t seed;
    opt_cfg optimizer;
    bool has_train_transform, has_val_transform;
    transform_cfg train_transform, val_transform;
} run_cfg;

static const char *const rules[] = {"sgd", "adam", NULL};
static const char *const branches[] = {"s1", "s2", "skeleton", "group", NULL};

static const pd_field opt_fields[] = {
    PD_ENUM(opt_cfg, rule, rules, .text = "sgd", .doc = "update rule"),
    PD_DOUBLE(opt_cfg, lr, .def = 0.1, .min = 0, .max = 100, .above_min = true, .doc = "learning rate"),
    PD_FLOAT(opt_cfg, momentum, .def = 0.9, .min = 0, .max = 1, .doc = "of the velocity"),
    PD_DOUBLES(opt_cfg, betas, .text = "[0.9, 0.999]", .min = 0, .max = 1, .doc = "of adam"),
};
static const pd_table opt_table = PD_TABLE(opt_cfg, opt_fields);

static const pd_field transform_fields[] = {
    PD_INT(transform_cfg, crop, .def = 224, .min = 1, .max = 4096, .doc = "pixels"),
    PD_DOUBLES(transform_cfg, area, .text = "[0.1, 1.0]", .min = 0, .max = 1, .doc = "share of the image"),
};
static const pd_table transform_table = PD_TABLE(transform_cfg, transform_fields);

static pd_status rising(const void *cfg, pd_err *err)
{
    const run_cfg *c = cfg;
    for (int i = 1; i < c->n_milestones; i++)
        if (c->milestones[i] <= c->milestones[i - 1]) return PD_FAIL(err, PD_EINVAL, "milestones must rise");
    return PD_OK;
}

static const pd_field run_fields[] = {
    PD_BOOL(run_cfg, flip, .def = 1, .doc = "mirror half of the images"),
    PD_INTS(run_cfg, size, .text = "[1333, 800]", .min = 1, .max = 8192, .doc = "long side, short side"),
    PD_INT_LIST(run_cfg, milestones, n_milestones, .min = 1, .max = 1000, .doc = "epochs"),
    PD_STRING_LIST(run_cfg, classes, n_classes, .text = "[\"cat\"]", .doc = "names"),
    PD_ENUM_LIST(run_cfg, branches, n_branches, branches, .text = "[\"s1\", \"group\"]", .doc = "branches"),
    PD_STRING(run_cfg, root, .doc = "folder"),
    PD_STRING(run_cfg, name, .text = "run", .doc = "of the run"),
    PD_INT64(run_cfg, seed, .def = 1, .doc = "of everything random"),
    PD_OBJECT(run_cfg, optimizer, &opt_table, .doc = "how weights move"),
    PD_OBJECT_OR_NONE(run_cfg, train_transform, has_train_transform, &transform_table, .def = 1,
                      .doc = "training images"),
    PD_OBJECT_OR_NONE(run_cfg, val_transform, has_val_transform, &transform_table, .doc = "validation images"),
};
static const pd_table run_table = PD_TABLE(run_cfg, run_fields, .check = rising);

static pd_status read_text(run_cfg *cfg, const char *text, const char *set, pd_arena *arena, pd_err *err)
{
    pd_config *c = NULL;
    PD_TRY(pd_config_parse(&c, "t.json", text, strlen(text), err));
    pd_status status = set ? pd_config_set(c, set, err) : PD_OK;
    if (status == PD_OK) status = pd_config_read(cfg, c, &run_table, arena, err);
    pd_config_free(c);
    return status;
}

static void test_defaults(void)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    run_cfg c = {0};
    PD_CHECK_OK(pd_config_defaults(&c, &run_table, arena, &err));
    PD_CHECK(c.flip && c.size[0] == 1333 && c.size[1] == 800 && c.n_milestones == 0 && c.seed == 1 && !c.root);
    PD_CHECK(c.n_classes == 1 && c.n_branches == 2 && c.branches[0] == 0 && c.branches[1] == 3);
    PD_CHECK_STR(c.name, "run");
    PD_CHECK_STR(c.classes[0], "cat");
    PD_CHECK(c.optimizer.rule == SGD && c.optimizer.lr == 0.1 && c.optimizer.momentum == 0.9f);
    PD_CHECK(c.optimizer.betas[0] == 0.9 && c.optimizer.betas[1] == 0.999);
    PD_CHECK(c.has_train_transform && c.train_transform.crop == 224 && !c.has_val_transform);
    pd_arena_free(arena);
}

static void test_values(void)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    run_cfg c = {0};
    PD_CHECK_OK(read_text(&c,
                          "{\"flip\": false, \"size\": [640, 480], \"milestones\": [8, 11], \"classes\": [],"
                          "\"branches\": [\"skeleton\"], \"root\": \"a/b\", \"seed\": 9007199254740991,"
                          "\"optimizer\": {\"rule\": \"adam\", \"lr\": 1e-3, \"momentum\": 0, \"betas\": [0, 1]},"
                          "\"train_transform\": \"none\", \"val_transform\": {\"crop\": 32}}",
                          "size=[320,\n 240]", arena, &err));
    PD_CHECK(!c.flip && c.size[0] == 320 && c.size[1] == 240 && c.n_milestones == 2 && c.milestones[1] == 11);
    PD_CHECK(c.n_classes == 0 && c.n_branches == 1 && c.branches[0] == 2 && c.seed == 9007199254740991);
    PD_CHECK_STR(c.root, "a/b");
    PD_CHECK(c.optimizer.rule == ADAM && c.optimizer.lr == 1e-3 && c.optimizer.momentum == 0 &&
             c.optimizer.betas[1] == 1);
    PD_CHECK(!c.has_train_transform && c.has_val_transform && c.val_transform.crop == 32 &&
             c.val_transform.area[0] == 0.1);
    pd_arena_free(arena);
}

static const struct {
    const char *text, *set, *message;
    pd_status status;
} wrong[] = {
    {"{\n\"flop\": true}", NULL, "t.json:2: flop: unknown key (did you mean \"flip\"?)", PD_EFORMAT},
    {"{\"optimizer\": {\n\n\"momentun\": 1}}", NULL,
     "t.json:3: optimizer.momentun: unknown key (did you mean \"momentum\"?)", PD_EFORMAT},
    {"{\"optimizer\": {\"verbose\": 1}}", NULL, "unknown key (allowed: rule, lr, momentum, betas)", PD_EFORMAT},
    {"{\"Flip\": true}", NULL, "t.json:1: Flip: unknown key (did you mean \"flip\"?)", PD_EFORMAT},
    {"{\"flip\": 1}", NULL, "t.json:1: flip: is 1 (a number), expected true or false", PD_EFORMAT},
    {"{\"seed\": 1.5}", NULL, "seed: is 1.5 (a number), expected a whole number", PD_EFORMAT},
    {"{\"seed\": 9007199254740993}", NULL, "seed: is 9007199254740992 (a number)", PD_EFORMAT},
    {"{\"size\": [1333]}", NULL, "size: is an array of 1, expected a list of 2 whole numbers from 1 to 8192",
     PD_EFORMAT},
    {"{\"size\": 800}", NULL, "size: is 800 (a number), expected a list of 2", PD_EFORMAT},
    {"{\"size\": [1333,\n0]}", NULL, "t.json:2: size[1]: is 0 (a number), expected a whole number from 1 to 8192",
     PD_EFORMAT},
    {"{\"milestones\": [1, 2, 3, 4, 5]}", NULL, "milestones: is an array of 5, expected a list of at most 4",
     PD_EFORMAT},
    {"{\"milestones\": [3, 3]}", NULL, "t.json:1: milestones must rise", PD_EFORMAT},
    {"{\"branches\": [\"s1\", \"skelton\"]}", NULL,
     "branches[1]: is \"skelton\" (a string), expected one of \"s1\", \"s2\", \"skeleton\", \"group\" (did you mean "
     "\"skeleton\"?)",
     PD_EFORMAT},
    {"{\"name\": null}", NULL, "name: is null, expected a string", PD_EFORMAT},
    {"{\"classes\": [null]}", NULL, "classes[0]: is null, expected a string", PD_EFORMAT},
    {"{\"optimizer\": 3}", NULL, "optimizer: is 3 (a number), expected an object", PD_EFORMAT},
    {"{\"flip\":\n {\"x\": 1}}", NULL, "t.json:2: flip: is an object, expected true or false", PD_EFORMAT},
    {"{\"optimizer\": \"none\"}", NULL, "expected an object", PD_EFORMAT},
    {"{\"val_transform\": \"non\"}", NULL, "val_transform: is \"non\" (a string), expected an object or \"none\"",
     PD_EFORMAT},
    {"{\"optimizer\": {\"lr\": 0}}", NULL, "optimizer.lr: is 0 (a number), expected a number above 0, at most 100",
     PD_EFORMAT},
    {"{\"optimizer\": {\"momentum\": 1.001}}", NULL, "expected a number from 0 to 1", PD_EFORMAT},
    {"{\"optimizer\": {\"lr\": NaN}}", NULL, "t.json:1: not a JSON value", PD_EFORMAT},
    {"{\"optimizer\": {\"lr\": 1e999}}", NULL, "optimizer.lr: a number too large", PD_EFORMAT},
    {"{\"flip\": true,\n\"flip\": true}", NULL, "t.json:2: flip: this key appears twice", PD_EFORMAT},
    {"{\"_base_\": \"x.json\"}", NULL, "t.json:1: _base_: only a file can have bases", PD_EFORMAT},
    {"{\"optimizer\": {\"_base_\": \"x.json\"}}", NULL, "optimizer._base_: unknown key", PD_EFORMAT},
    {"[]", NULL, "a configuration is an object", PD_EFORMAT},
    {"{}", "optimizer.lr=fast", "command line: optimizer.lr: is \"fast\" (a string), expected a number above",
     PD_EINVAL},
    {"{}", "optimizer.rl=1", "command line: optimizer.rl: unknown key (did you mean \"lr\"?)", PD_EINVAL},
    {"{}", "root=2024", "command line: root: is 2024 (a number), expected a string or null (quote it twice", PD_EINVAL},
    {"{}", "flip", "command line: \"flip\": expected KEY=VALUE", PD_EINVAL},
    {"{}", "=1", "\"\" is no key path", PD_EINVAL},
    {"{}", "optimizer..lr=1", "\"optimizer..lr\" is no key path", PD_EINVAL},
    {"{}", "optimizer.=1", "is no key path", PD_EINVAL},
    {"{\"flip\": true}", "flip.x=1", "command line: flip: is an object, expected true or false", PD_EINVAL},
};

static void test_messages(void)
{
    pd_arena *arena = pd_arena_new();
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        PD_ROW(wrong[i].set ? wrong[i].set : wrong[i].text);
        pd_err err = PD_ERR_INIT;
        run_cfg c, before;
        memset(&c, 0x5a, sizeof c);
        before = c;
        PD_CHECK_FAILS(read_text(&c, wrong[i].text, wrong[i].set, arena, &err), wrong[i].status, wrong[i].message);
        PD_CHECK(!memcmp(&c, &before, sizeof c));
    }
    PD_ROW("");
    pd_arena_free(arena);
}

/* Writes `text` to dir/name. */
static void put(const char *dir, const char *name, const char *text)
{
    pd_err err = PD_ERR_INIT;
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    PD_CHECK_OK(pd_file_write(path, text, strlen(text), &err));
}

static pd_status read_file(run_cfg *c, const char *dir, const char *name, pd_arena *arena, pd_err *err)
{
    char path[400];
    pd_config *config = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    PD_TRY(pd_config_load(&config, path, err));
    const pd_status status = pd_config_read(c, config, &run_table, arena, err);
    pd_config_free(config);
    return status;
}

static void test_bases(void)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    char dir[256], sub[300], cmd[300];
    PD_CHECK(pd_test_dir(dir, "config"));
    snprintf(sub, sizeof sub, "%s/base", dir);
    PD_CHECK_OK(pd_make_dirs(sub, &err));
    put(dir, "base/opt.json", "{\"optimizer\": {\"rule\": \"adam\", \"lr\": 0.5, \"momentum\": 0.25}, \"seed\": 7}");
    put(dir, "base/data.json", "{\"_base_\": \"deep.json\", \"size\": [64, 32], \"seed\": 8}");
    put(dir, "base/deep.json",
        "{\"size\": [1, 1], \"root\": \"deep\", \"milestones\": [1, 2, 3],\n"
        "\"val_transform\": {\"crop\": 9, \"area\": [0.5, 0.75]}}");
    put(dir, "merge.json",
        "{\"_base_\": [\"base/opt.json\", \"./base/data.json\"], \"optimizer\": {\"lr\": 0.125},"
        "\"milestones\": [5], \"train_transform\": \"none\", \"val_transform\": {\"crop\": 10}}");
    run_cfg c;
    PD_CHECK_OK(read_file(&c, dir, "merge.json", arena, &err));
    PD_CHECK(c.optimizer.rule == ADAM && c.optimizer.lr == 0.125 && c.optimizer.momentum == 0.25f);
    PD_CHECK(c.seed == 8 && c.size[0] == 64 && c.n_milestones == 1 && c.milestones[0] == 5 && !c.has_train_transform);
    PD_CHECK(c.val_transform.crop == 10 && c.val_transform.area[0] == 0.5);
    PD_CHECK_STR(c.root, "deep");

    put(dir, "delete.json",
        "{\"_base_\": \"merge.json\", \"optimizer\": {\"_delete_\": true, \"lr\": 0.75},"
        "\"train_transform\": {\"crop\": 3}, \"val_transform\": {\"_delete_\": false}}");
    PD_CHECK_OK(read_file(&c, dir, "delete.json", arena, &err));
    PD_CHECK(c.optimizer.rule == SGD && c.optimizer.lr == 0.75 && c.optimizer.momentum == 0.9f);
    PD_CHECK(c.has_train_transform && c.train_transform.crop == 3 && c.val_transform.crop == 10);

    put(dir, "bad_base.json", "{\n\"_base_\": \"base/missing.json\"}");
    PD_CHECK_FAILS(read_file(&c, dir, "bad_base.json", arena, &err), PD_EIO, "bad_base.json:2: _base_: ");
    PD_CHECK(strstr(err.text, "base/missing.json: cannot open"));
    put(dir, "base/wrong.json", "{\"optimizer\":\n {\"momentum\": 2}}");
    put(dir, "on_wrong.json", "{\"_base_\": \"base/wrong.json\", \"optimizer\": {\"lr\": 1}}");
    PD_CHECK_FAILS(read_file(&c, dir, "on_wrong.json", arena, &err), PD_EFORMAT,
                   "/base/wrong.json:2: optimizer.momentum: is 2");
    put(dir, "a.json", "{\"_base_\": \"b.json\"}");
    put(dir, "b.json", "{\"_base_\":\n [\"base/opt.json\", \"base/../a.json\"]}");
    PD_CHECK_FAILS(read_file(&c, dir, "a.json", arena, &err), PD_EFORMAT,
                   "b.json:2: _base_[1]: base/../a.json leads back to");
    put(dir, "number.json", "{\"_base_\": 3}");
    PD_CHECK_FAILS(read_file(&c, dir, "number.json", arena, &err), PD_EFORMAT,
                   "_base_: is 3 (a number), expected a file");
    put(dir, "delete_number.json", "{\"optimizer\": {\"_delete_\": 1}}");
    PD_CHECK_FAILS(read_file(&c, dir, "delete_number.json", arena, &err), PD_EFORMAT,
                   "_delete_: expected true or false");
    PD_CHECK_FAILS(read_file(&c, dir, "nothing.json", arena, &err), PD_EIO, "nothing.json: cannot open");
    pd_arena_free(arena);
    snprintf(cmd, sizeof cmd, "rm -r '%s'", dir);
    PD_CHECK(system(cmd) == 0);
}

static void test_assignments(void)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    pd_config *c = NULL;
    run_cfg cfg;
    PD_CHECK_OK(pd_config_parse(&c, "{}", "{\"optimizer\": {\"rule\": \"adam\"}}", 31, &err));
    PD_CHECK_OK(pd_config_set(c, "optimizer={\"lr\": 2}", &err));
    PD_CHECK_OK(pd_config_set(c, "root=images/train=1", &err));
    PD_CHECK_OK(pd_config_set(c, "name=\"a b\"", &err));
    PD_CHECK_OK(pd_config_set(c, "val_transform.crop=7", &err));
    PD_CHECK_OK(pd_config_set(c, "train_transform=none", &err));
    PD_CHECK_OK(pd_config_set_number(c, "seed", 12, &err));
    PD_CHECK_OK(pd_config_set(c, "optimizer.momentum=0.5", &err));
    PD_CHECK_OK(pd_config_set(c, "optimizer.momentum=0.75", &err));
    PD_CHECK_STR(pd_config_peek(c, "optimizer.rule"), "adam");
    PD_CHECK(!pd_config_peek(c, "optimizer.lr") && !pd_config_peek(c, "optimizer") &&
             !pd_config_peek(c, "nothing.there"));
    PD_CHECK(pd_config_has(c, "optimizer.lr") && !pd_config_has(c, "optimizer.betas"));
    PD_CHECK_OK(pd_config_read(&cfg, c, &run_table, arena, &err));
    PD_CHECK(cfg.optimizer.rule == ADAM && cfg.optimizer.lr == 2 && cfg.optimizer.momentum == 0.75f && cfg.seed == 12);
    PD_CHECK_STR(cfg.root, "images/train=1");
    PD_CHECK_STR(cfg.name, "a b");
    PD_CHECK(cfg.val_transform.crop == 7 && cfg.has_val_transform && !cfg.has_train_transform);
    PD_CHECK_OK(pd_config_set_string(c, "root", "12", &err));
    PD_CHECK_OK(pd_config_set(c, "optimizer.rule=sgd", &err));
    PD_CHECK_OK(pd_config_read(&cfg, c, &run_table, arena, &err));
    PD_CHECK_STR(cfg.root, "12");
    PD_CHECK(cfg.optimizer.rule == SGD);
    pd_config_free(c);
    pd_config_free(NULL);
    pd_arena_free(arena);
}

static void test_print(void)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    run_cfg c, again;
    PD_CHECK_OK(read_text(&c,
                          "{\"optimizer\": {\"lr\": 0.30000000000000004, \"momentum\": 0.1}, \"milestones\": [8, 11],"
                          "\"name\": \"q\\\"uote\", \"val_transform\": {}}",
                          NULL, arena, &err));
    char *text = NULL, *text2 = NULL;
    PD_CHECK_OK(pd_config_print(&text, &c, &run_table, arena, &err));
    PD_CHECK_STR(text,
                 "{\n    \"flip\": true,\n    \"size\": [1333, 800],\n    \"milestones\": [8, 11],\n"
                 "    \"classes\": [\"cat\"],\n    \"branches\": [\"s1\", \"group\"],\n    \"root\": null,\n"
                 "    \"name\": \"q\\\"uote\",\n    \"seed\": 1,\n    \"optimizer\": {\n        \"rule\": \"sgd\",\n"
                 "        \"lr\": 0.30000000000000004,\n        \"momentum\": 0.1,\n        \"betas\": [0.9, 0.999]\n"
                 "    },\n    \"train_transform\": {\n        \"crop\": 224,\n        \"area\": [0.1, 1]\n    },\n"
                 "    \"val_transform\": {\n        \"crop\": 224,\n        \"area\": [0.1, 1]\n    }\n}");
    PD_CHECK_OK(read_text(&again, text, NULL, arena, &err));
    PD_CHECK(again.optimizer.lr == c.optimizer.lr && again.optimizer.momentum == c.optimizer.momentum);
    PD_CHECK_OK(pd_config_print(&text2, &again, &run_table, arena, &err));
    PD_CHECK_STR(text2, text);
    c.has_val_transform = false;
    PD_CHECK_OK(pd_config_print(&text2, &c, &run_table, arena, &err));
    PD_CHECK(strstr(text2, "\"val_transform\": \"none\""));
    PD_CHECK_OK(pd_config_help(&text, &run_table, arena, &err));
    PD_CHECK(strstr(text, "  optimizer.lr = 0.1\n      learning rate (a number above 0, at most 100)\n"));
    PD_CHECK(strstr(text, "\noptimizer: how weights move\n  optimizer.rule = \"sgd\""));
    PD_CHECK(
        strstr(text, "  size = [1333, 800]\n      long side, short side (a list of 2 whole numbers from 1 to 8192)"));
    PD_CHECK(strstr(text, "  val_transform = \"none\"\n      validation images (an object or \"none\")\n"));
    pd_arena_free(arena);
}

typedef struct {
    int need;
    int bad;
} strict_cfg;

typedef struct {
    float x;
} float_cfg;

static void test_rows(void)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    static const pd_field required[] = {
        PD_INT(strict_cfg, need, .required = true, .min = 1, .max = 9, .doc = "classes"),
        PD_INT(strict_cfg, bad, .def = 3),
    };
    static const pd_table required_table = PD_TABLE(strict_cfg, required);
    strict_cfg c = {0, 0};
    pd_config *config = NULL;
    PD_CHECK_OK(pd_config_parse(&config, "r.json", "{}", 2, &err));
    PD_CHECK_FAILS(pd_config_read(&c, config, &required_table, arena, &err), PD_EFORMAT,
                   "r.json: need: is missing; expected a whole number from 1 to 9: classes");
    PD_CHECK_OK(pd_config_set_number(config, "need", 4, &err));
    PD_CHECK_OK(pd_config_read(&c, config, &required_table, arena, &err));
    PD_CHECK(c.need == 4 && c.bad == 3);
    pd_config_free(config);
    static const pd_field wrong_default[] = {PD_INT(strict_cfg, bad, .def = 0, .min = 1, .max = 9)};
    static const pd_table wrong_table = PD_TABLE(strict_cfg, wrong_default);
    PD_CHECK_FAILS(pd_config_defaults(&c, &wrong_table, arena, &err), PD_EINVAL,
                   "bad: its default is not in its own range");
    PD_CHECK(c.need == 4);

    static const pd_field unbounded[] = {PD_FLOAT(float_cfg, x)};
    static const pd_table unbounded_table = PD_TABLE(float_cfg, unbounded);
    float_cfg x = {1};
    PD_CHECK_OK(pd_config_parse(&config, "f.json", "{\"x\": 3e38}", 11, &err));
    PD_CHECK_OK(pd_config_read(&x, config, &unbounded_table, arena, &err));
    PD_CHECK(x.x == 3e38f);
    PD_CHECK_OK(pd_config_set(config, "x=-4e38", &err));
    PD_CHECK_FAILS(pd_config_read(&x, config, &unbounded_table, arena, &err), PD_EINVAL, "x: is -4e+38 (a number)");
    pd_config_free(config);
    pd_arena_free(arena);

    static const char *const words[] = {"momentum", "milestones", "lr", "betas", NULL};
    PD_CHECK_STR(pd_nearest_word("mometnum", words), "momentum");
    PD_CHECK_STR(pd_nearest_word("rl", words), "lr");
    PD_CHECK(!pd_nearest_word("xyz", words) && !pd_nearest_word("", words));
}

int main(void)
{
    test_defaults();
    test_values();
    test_messages();
    test_bases();
    test_assignments();
    test_print();
    test_rows();
    return pd_test_end();
}
