/* pd_classify and pd_detect against the PyTorch reference itself: it makes the weights, the input and the answer on the
 * spot, for networks, sizes and branch sets that no golden file has. Needs python3 with torch and the reference's
 * programs in $PD_SHARED/tools; skipped otherwise. ctest: slow */
#include "engine/file.h"
#include "tests/golden_output.h"
#include "tests/programs.h"

static char dir[256], tools[400];

static bool run(const char *bin, const char *command)
{
    pd_child c = {0};
    pd_child_run(&c, NULL, bin, "%s", command);
    PD_CHECK_MSG(c.code == 0, "%s: exit code %d: %s", c.line, c.code, c.err);
    const bool done = c.code == 0;
    pd_child_free(&c);
    return done;
}

static const struct {
    const char *program; /* the reference's */
    const char *makes;   /* its words */
    const char *ours;    /* what ours is told; @ is the source folder */
} rows[] = {
    {"paradise", "net --arch pd_b_resnet18 --branches s1,group --classes 10 --size 72 --batch 3 --seed 11",
     "pd_classify --num-classes 10 --branches s1,group --stages"},
    {"paradise", "net --arch pd_a_resnet50 --branches s1,s2,group --classes 7 --size 40 --batch 1 --seed 12",
     "pd_classify --num-classes 7 --branches s1,s2,group --stages --mode branches"},
    {"paradise", "net --arch se_resnet50 --classes 5 --size 65 --batch 2 --seed 13",
     "pd_classify --num-classes 5 --stages"},
    {"detection", "retina --arch pd_b_resnet18 --classes 6 --size 96x160 --batch 2 --seed 14 --ragged",
     "pd_detect --config @/configs/retina_pd_b_r50.json --set model.backbone.arch=pd_b_resnet18 --set "
     "model.num_classes=6"},
    {"detection", "cascade --arch pd_a_resnet18 --classes 9 --size 128x96 --batch 2 --seed 15 --ragged",
     "pd_detect --config @/configs/cascade_pd_a_r50.json --set model.backbone.arch=pd_a_resnet18 --set "
     "model.num_classes=9"},
};

/* "retina --arch .." -> "retina OUT --arch .." */
static void ask_reference(int i, const char *golden, const char *weights)
{
    char command[2000];
    const int verb = (int)strcspn(rows[i].makes, " ");
    snprintf(command, sizeof command, "python3 %s/%s_oracle.py %.*s %s%s --weights %s", tools, rows[i].program, verb,
             rows[i].makes, golden, rows[i].makes + verb, weights);
    run("/usr/bin", command);
}

static void ask_ours(int i, const char *golden, const char *weights, const char *output)
{
    char command[2000];
    const int verb = (int)strcspn(rows[i].ours, " ");
    int n = snprintf(command, sizeof command, "%.*s %s --threads 2 --input %s %s %s", verb, rows[i].ours, weights,
                     golden, strstr(rows[i].ours, "pd_detect") ? "--raw" : "--output", output);
    for (const char *p = rows[i].ours + verb; *p; p++)
        n +=
            snprintf(command + n, sizeof command - (size_t)n, *p == '@' ? "%s" : "%.1s", *p == '@' ? PD_SOURCE_DIR : p);
    if (run(PD_BIN_DIR, command)) {
        pd_st *answer = NULL;
        PD_CHECK_OK(pd_st_open(&answer, golden, &err));
        if (answer) check_output(answer, output);
        pd_st_close(answer);
    }
}

int main(void)
{
    char path[500], golden[400], weights[400], output[400];
    const char *shared = getenv("PD_SHARED");
    snprintf(tools, sizeof tools, "%s/tools", shared ? shared : PD_SOURCE_DIR "/../shared");
    snprintf(path, sizeof path, "%s/detection_oracle.py", tools);
    if (!pd_file_exists(path) || system("/usr/bin/python3 -c 'import torch' 2>/dev/null") != 0) {
        PD_SKIP("needs python3 with torch and %s", path);
        return pd_test_end();
    }
    if (!pd_test_dir(dir, "oracle")) return 1;
    snprintf(golden, sizeof golden, "%s/golden.safetensors", dir);
    snprintf(weights, sizeof weights, "%s/weights.safetensors", dir);
    snprintf(output, sizeof output, "%s/output.safetensors", dir);
    for (int i = 0; i < (int)(sizeof rows / sizeof *rows); i++) {
        PD_ROW(rows[i].makes);
        worst_tensor = 0;
        ask_reference(i, golden, weights);
        ask_ours(i, golden, weights, output);
        printf("%s: largest difference %.1e (%s)\n", rows[i].makes, worst_tensor, worst_name);
    }
    pd_remove_tree(dir);
    return pd_test_end();
}
